// `tiktoken.model`: the rank file of Kimi-K2 and Moonlight, bytes -> struct. Used by text/tokenizer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hadal {

struct TiktokenModel {
  std::vector<std::string> tokens;  // index = rank = id; raw bytes, not UTF-8, distinct, never empty
};

// Lines "base64(bytes) rank". Ranks must be 0..n-1, each once, in any order; all 256 single bytes must be there.
// Errors: kCorrupt with the line number.
Expected<TiktokenModel> parse_tiktoken(std::string_view text);

}  // namespace hadal
