#include "base/utf8.h"

namespace hadal {
namespace {

// Legal range of the second byte and total length by lead byte; length 0 means "never a lead byte".
struct Lead {
  uint8_t num_bytes, second_min, second_max;
};

Lead classify_lead(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Step decode_utf8(std::string_view text) {
  const auto byte_at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const Lead lead = classify_lead(byte_at(0));
  if (lead.num_bytes == 0) return {Utf8Step::kInvalid, 1, 0};
  if (lead.num_bytes == 1) return {Utf8Step::kValid, 1, byte_at(0)};
  char32_t code_point = byte_at(0) & (0x7F >> lead.num_bytes);
  for (size_t i = 1; i < lead.num_bytes; ++i) {
    if (i == text.size()) return {Utf8Step::kIncomplete, i, 0};
    const uint8_t low = i == 1 ? lead.second_min : 0x80;
    const uint8_t high = i == 1 ? lead.second_max : 0xBF;
    if (byte_at(i) < low || byte_at(i) > high) return {Utf8Step::kInvalid, i, 0};
    code_point = (code_point << 6) | (byte_at(i) & 0x3F);
  }
  return {Utf8Step::kValid, lead.num_bytes, code_point};
}

size_t find_invalid_utf8(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    if (static_cast<uint8_t>(text[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const Utf8Step step = decode_utf8(text.substr(pos));
    if (step.kind != Utf8Step::kValid) return pos;
    pos += step.num_bytes;
  }
  return std::string_view::npos;
}

void append_utf8(std::string& out, char32_t cp) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (cp < 0x80) {
    put(cp);
  } else if (cp < 0x800) {
    put(0xC0 | (cp >> 6));
    put(0x80 | (cp & 0x3F));
  } else if (cp < 0x10000) {
    put(0xE0 | (cp >> 12));
    put(0x80 | ((cp >> 6) & 0x3F));
    put(0x80 | (cp & 0x3F));
  } else {
    put(0xF0 | (cp >> 18));
    put(0x80 | ((cp >> 12) & 0x3F));
    put(0x80 | ((cp >> 6) & 0x3F));
    put(0x80 | (cp & 0x3F));
  }
}

std::string to_valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    if (step.kind == Utf8Step::kValid) {
      out.append(text.substr(0, step.num_bytes));
    } else {
      append_utf8(out, kReplacementCharacter);
    }
    text.remove_prefix(step.num_bytes);
  }
  return out;
}

}  // namespace hadal
