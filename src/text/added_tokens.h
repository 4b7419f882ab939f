// Finds the text of added tokens ("<｜User｜>") in raw text, before anything else looks at it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hadal {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool normalized = false;
};

struct AddedTokenMatch {
  size_t begin = 0, end = 0;  // bytes of the text
  int32_t id = 0;
};

// Leftmost, then longest. Tokens with normalized = false are matched first; the others in what is left between them,
// as in the Hugging Face library. Immutable, thread-safe.
class AddedTokenMatcher {
 public:
  explicit AddedTokenMatcher(std::span<const AddedToken> tokens);

  // Appends the matches inside text[begin, end), ascending, offsets relative to text. Cost: linear, times the token
  // length at places where tokens begin.
  void find(std::string_view text, size_t begin, size_t end, std::vector<AddedTokenMatch>& matches) const;

 private:
  class Trie {
   public:
    void add(std::string_view content, int32_t id);
    void find(std::string_view text, size_t begin, size_t end, std::vector<AddedTokenMatch>& matches) const;
    bool empty() const { return nodes_.size() == 1; }

   private:
    struct Node {
      std::vector<std::pair<uint8_t, int32_t>> children;  // sorted by byte
      int32_t id = -1;                                    // token that ends here
    };
    int32_t child(int32_t node, uint8_t byte) const;

    std::vector<Node> nodes_ = std::vector<Node>(1);
    bool is_first_byte_[256] = {};
  };

  Trie exact_, normalized_;
};

}  // namespace hadal
