// UTF-8 as bytes come: validation and decoding without trust.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hadal {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// What starts at text[0]. Follows Unicode's table 3-7 (no surrogates, no overlong forms, at most U+10FFFF).
struct Utf8Step {
  enum Kind { kValid, kInvalid, kIncomplete } kind;
  // kValid: length of the code point; kInvalid: length of the maximal invalid part to replace by one U+FFFD;
  // kIncomplete: text ends inside a sequence that could still become valid.
  size_t num_bytes;
  char32_t code_point;  // kValid only
};
Utf8Step decode_utf8(std::string_view text);  // Requires !text.empty().

// Offset of the first byte that is not valid UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

void append_utf8(std::string& out, char32_t code_point);

// Replaces each maximal invalid part by U+FFFD.
std::string to_valid_utf8(std::string_view text);

}  // namespace hadal
