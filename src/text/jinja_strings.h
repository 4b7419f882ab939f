// String operations shared by filters and methods of the template language.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "text/jinja_filters.h"
#include "text/jinja_value.h"

namespace hadal::jinja {

size_t num_characters(std::string_view text);

enum class LetterCase { kLower, kUpper, kCapitalized, kTitle };
// ASCII only: errors for letters whose case mapping would need Unicode tables.
Expected<std::string> change_case(std::string_view text, LetterCase letter_case);

enum class StripSide { kLeft, kRight, kBoth };
// `chars`: none for blanks, else a string of characters to strip.
Expected<Value> strip(std::string_view text, const Value& chars, StripSide side);

// `count`: none for all.
Expected<Value> replace(std::string_view text, const Value& from, const Value& to, const Value& count,
                        Runtime& runtime);

// A list of (key, value) tuples.
Expected<Value> dict_items(const DictData& dict, Runtime& runtime);

}  // namespace hadal::jinja
