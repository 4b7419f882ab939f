// GPT-2's spelling of bytes as printable characters ("Ġ" is a blank), in which tokenizer.json writes its vocabulary.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hadal {

// Bytes 33-126, 161-172 and 174-255 are the character of that number; the others, ascending, are U+0100 and up.
char32_t byte_to_spelling(uint8_t byte);

std::string spell_bytes(std::string_view bytes);

// The bytes of a spelled token, or nothing when a character stands for no byte.
std::optional<std::string> unspell_bytes(std::string_view spelling);

}  // namespace hadal
