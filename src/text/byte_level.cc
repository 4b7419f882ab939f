#include "text/byte_level.h"

#include <array>

#include "base/utf8.h"

namespace hadal {
namespace {

constexpr char32_t kFirstShifted = 0x100;

constexpr bool is_printable(unsigned byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

struct ByteTables {
  std::array<char32_t, 256> spelling{};
  // Index = code point below U+0144; -1 where no byte is spelled so.
  std::array<int16_t, kFirstShifted + 68> byte{};
};

constexpr ByteTables make_tables() {
  ByteTables tables;
  tables.byte.fill(-1);
  char32_t next_shifted = kFirstShifted;
  for (unsigned byte = 0; byte < 256; ++byte) {
    tables.spelling[byte] = is_printable(byte) ? byte : next_shifted++;
    tables.byte[tables.spelling[byte]] = static_cast<int16_t>(byte);
  }
  return tables;
}
constexpr ByteTables kTables = make_tables();

}  // namespace

char32_t byte_to_spelling(uint8_t byte) { return kTables.spelling[byte]; }

std::string spell_bytes(std::string_view bytes) {
  std::string spelling;
  spelling.reserve(bytes.size() * 2);
  for (const char byte : bytes) append_utf8(spelling, byte_to_spelling(static_cast<uint8_t>(byte)));
  return spelling;
}

std::optional<std::string> unspell_bytes(std::string_view spelling) {
  std::string bytes;
  bytes.reserve(spelling.size());
  while (!spelling.empty()) {
    const Utf8Step step = decode_utf8(spelling);
    if (step.kind != Utf8Step::kValid || step.code_point >= kTables.byte.size()) return std::nullopt;
    const int16_t byte = kTables.byte[step.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    spelling.remove_prefix(step.num_bytes);
  }
  return bytes;
}

}  // namespace hadal
