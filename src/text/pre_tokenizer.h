// Cuts text into the pieces inside which BPE merges.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/split_regex.h"

namespace hadal {

// A sequence of Split stages, behavior Isolated. Immutable, thread-safe.
class PreTokenizer {
 public:
  explicit PreTokenizer(std::vector<SplitRegex> stages) : stages_(std::move(stages)) {}

  // Appends the pieces of `text` (valid UTF-8) in order; joined, they are the text. Each stage runs over every piece of
  // the stage before, and sees nothing outside it. Cost: linear for the patterns of the known models.
  Status split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  Status split_stage(size_t stage, std::string_view text, std::vector<std::string_view>& pieces) const;

  std::vector<SplitRegex> stages_;
};

}  // namespace hadal
