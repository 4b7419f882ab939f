// Python's notions of text that templates and the Kimi tokenizer wrapper depend on. Text is valid UTF-8.
#pragma once

#include <string_view>

namespace hadal {

// str.isspace() of one character: Unicode White_Space and U+001C..U+001F.
bool is_python_space(char32_t code_point);

// str.lstrip(), str.rstrip(), str.strip() without arguments.
std::string_view python_lstrip(std::string_view text);
std::string_view python_rstrip(std::string_view text);
std::string_view python_strip(std::string_view text);

}  // namespace hadal
