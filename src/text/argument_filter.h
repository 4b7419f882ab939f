// The arguments of a tool call out of what stands between its markers, while it streams.
#pragma once

#include <string>
#include <string_view>

namespace hadal {

// Drops blanks (space, tab, line breaks) at both ends and, where `is_fenced`, the last "\n```" with the blanks behind
// it. Byte for byte the same however the text is cut. Single-owner.
class ArgumentFilter {
 public:
  // Fenced arguments begin behind a line break: "```" at once is an end too.
  explicit ArgumentFilter(bool is_fenced) : is_fenced_(is_fenced), num_matched_(is_fenced ? 1 : 0) {}

  // What can no longer be dropped.
  std::string push(std::string_view text);
  // The rest, at the end of the arguments.
  std::string finish();

 private:
  void push_byte(char byte, std::string* out);
  void release(size_t num_bytes, std::string* out);

  bool is_fenced_;
  bool started_ = false;    // something was passed on
  bool has_fence_ = false;  // held_ has a whole fence
  size_t num_matched_;      // bytes of "\n```" just seen
  size_t fence_end_ = 0;    // in held_, where has_fence_
  bool in_run_ = false;     // the end of held_ is blanks and perhaps a beginning fence
  size_t run_begin_ = 0;    // in held_, where in_run_
  std::string held_;        // a run; or a run with a fence and all behind it
};

}  // namespace hadal
