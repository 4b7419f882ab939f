// Sets of Unicode code points: the character classes of patterns and grammars.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace hadal {

// A value. Surrogates are never members: what is built from a set is valid UTF-8.
class CodePointSet {
 public:
  struct Range {
    char32_t low = 0, high = 0;  // inclusive
    auto operator<=>(const Range&) const = default;
  };

  CodePointSet() = default;
  CodePointSet(std::initializer_list<Range> ranges);
  static CodePointSet all();
  // Of a string of ASCII characters.
  static CodePointSet of(std::string_view ascii);

  void add(char32_t low, char32_t high);
  void add(const CodePointSet& other);
  CodePointSet complement() const;
  CodePointSet intersection(const CodePointSet& other) const;
  CodePointSet minus(const CodePointSet& other) const { return intersection(other.complement()); }
  // ASCII letters in both cases where one is a member; other letters keep their case.
  CodePointSet ascii_case_folded() const;

  bool contains(char32_t code_point) const;
  bool empty() const { return ranges_.empty(); }
  // Ascending, neither touching nor overlapping.
  std::span<const Range> ranges() const { return ranges_; }
  auto operator<=>(const CodePointSet&) const = default;

 private:
  std::vector<Range> ranges_;
};

// Of an escape: the hexadecimal digits that `text` begins with, at most `max_digits`. Values beyond Unicode, which ends
// at 0x10FFFF, count as 0x110000; surrogates are the caller's business.
struct HexDigits {
  char32_t value = 0;
  size_t num_digits = 0;
};
HexDigits read_hex_digits(std::string_view text, size_t max_digits = std::string_view::npos);

}  // namespace hadal
