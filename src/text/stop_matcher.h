// Stop strings in streamed text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

// The result does not depend on how the text is cut into pushes: the stop string that is complete first wins; of those
// complete at the same byte, the longest. Built as an Aho-Corasick automaton: time is linear in the text, whatever the
// number of stop strings. Single-owner.
class StopMatcher {
 public:
  // Empty stop strings are ignored. `include_stop`: the stop string itself is emitted too.
  explicit StopMatcher(std::vector<std::string> stops, bool include_stop = false);

  struct Result {
    std::string emit;      // text that can no longer be part of a stop string
    bool stopped = false;  // nothing after this push counts; later pushes return nothing
    std::string which;     // the stop string, when stopped
  };
  // Holds back the longest suffix of the text so far that begins a stop string.
  Result push(std::string_view text);

  // What is held back, at the end of a stream that met no stop string.
  std::string flush();

  bool stopped() const { return stopped_; }
  size_t num_held_back_bytes() const { return held_.size(); }

 private:
  struct Node {
    std::vector<std::pair<uint8_t, int32_t>> children;  // few per node, unsorted
    int32_t fail = 0;                                   // longest proper suffix that is also a path
    int32_t stop = -1;                                  // longest stop string that ends here, index into stops_
    int32_t depth = 0;                                  // bytes from the root
  };
  int32_t child(int32_t node, uint8_t byte) const;
  void add_stop(size_t index);
  void link_failures();

  std::vector<std::string> stops_;
  bool include_stop_;
  std::vector<Node> nodes_;
  int32_t state_ = 0;
  std::string held_;  // the last nodes_[state_].depth bytes of the text
  bool stopped_ = false;
};

}  // namespace hadal
