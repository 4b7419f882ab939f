#include "text/python_text.h"

#include <cstdint>

#include "base/utf8.h"

namespace hadal {

bool is_python_space(char32_t c) {
  if (c < 0x80) return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view python_lstrip(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    if (step.kind != Utf8Step::kValid || !is_python_space(step.code_point)) break;
    text.remove_prefix(step.num_bytes);
  }
  return text;
}

std::string_view python_rstrip(std::string_view text) {
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (static_cast<uint8_t>(text[last]) & 0xC0) == 0x80) --last;
    const Utf8Step step = decode_utf8(text.substr(last));
    if (step.kind != Utf8Step::kValid || !is_python_space(step.code_point)) break;
    text = text.substr(0, last);
  }
  return text;
}

std::string_view python_strip(std::string_view text) { return python_lstrip(python_rstrip(text)); }

}  // namespace hadal
