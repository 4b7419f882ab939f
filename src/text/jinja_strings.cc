#include "text/jinja_strings.h"

#include <algorithm>

#include "base/utf8.h"
#include "text/python_text.h"

namespace hadal::jinja {
namespace {

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
char to_lower(char c) { return is_upper(c) ? static_cast<char>(c + ('a' - 'A')) : c; }
char to_upper(char c) { return is_lower(c) ? static_cast<char>(c - ('a' - 'A')) : c; }

bool holds_character(std::string_view characters, std::string_view character) {
  return characters.find(character) != std::string_view::npos;
}

size_t last_character_begin(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

}  // namespace

size_t num_characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

Expected<std::string> change_case(std::string_view text, LetterCase letter_case) {
  std::string out;
  out.reserve(text.size());
  bool after_letter = false;
  for (const char c : text) {
    if (static_cast<uint8_t>(c) >= 0x80) return template_error("case changes of non-ASCII text are not supported");
    const bool raises = letter_case == LetterCase::kUpper || (letter_case == LetterCase::kCapitalized && out.empty()) ||
                        (letter_case == LetterCase::kTitle && !after_letter);
    out += raises ? to_upper(c) : to_lower(c);
    after_letter = is_lower(c) || is_upper(c);
  }
  return out;
}

Expected<Value> strip(std::string_view text, const Value& chars, StripSide side) {
  const bool left = side != StripSide::kRight, right = side != StripSide::kLeft;
  if (chars.is_none()) {
    if (left) text = python_lstrip(text);
    if (right) text = python_rstrip(text);
    return Value(text);
  }
  if (!chars.is_string()) return template_error("strip arg must be None or str");
  const std::string& set = chars.as_string();
  while (left && !text.empty()) {
    const size_t num_bytes = decode_utf8(text).num_bytes;
    if (!holds_character(set, text.substr(0, num_bytes))) break;
    text.remove_prefix(num_bytes);
  }
  while (right && !text.empty()) {
    const size_t begin = last_character_begin(text);
    if (!holds_character(set, text.substr(begin))) break;
    text = text.substr(0, begin);
  }
  return Value(text);
}

Expected<Value> replace(std::string_view text, const Value& from, const Value& to, const Value& count,
                        Runtime& runtime) {
  if (!from.is_string() || !to.is_string()) return template_error("replace() arguments must be str");
  if (!count.is_none() && !count.is_integral()) return template_error("replace() count must be int");
  const std::string& old_text = from.as_string();
  if (old_text.empty()) return template_error("replace() of the empty string is not supported");
  const Integer limit = count.is_none() || count.as_integer() < 0 ? kMaxInteger : count.as_integer();
  std::string out;
  for (Integer i = 0; i < limit; ++i) {
    const size_t found = text.find(old_text);
    if (found == std::string_view::npos) break;
    out += text.substr(0, found);
    out += to.as_string();
    HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(found + old_text.size() + to.as_string().size()));
    text.remove_prefix(found + old_text.size());
  }
  HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(text.size()));
  out += text;
  return Value(std::move(out));
}

Expected<Value> dict_items(const DictData& dict, Runtime& runtime) {
  std::vector<Value> pairs;
  pairs.reserve(dict.items.size());
  for (const auto& [key, value] : dict.items) {
    HADAL_ASSIGN_OR_RETURN(Value pair, make_list({Value(key), value}, true, runtime.budget));
    pairs.push_back(std::move(pair));
  }
  return make_list(std::move(pairs), false, runtime.budget);
}

}  // namespace hadal::jinja
