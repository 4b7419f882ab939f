#include "text/code_point_set.h"

#include <algorithm>

namespace hadal {
namespace {

constexpr char32_t kMaxCodePoint = 0x10FFFF;
constexpr char32_t kFirstSurrogate = 0xD800, kLastSurrogate = 0xDFFF;

}  // namespace

CodePointSet::CodePointSet(std::initializer_list<Range> ranges) {
  for (const Range& range : ranges) add(range.low, range.high);
}

CodePointSet CodePointSet::all() { return {{0, kMaxCodePoint}}; }

CodePointSet CodePointSet::of(std::string_view ascii) {
  CodePointSet set;
  for (const char c : ascii) set.add(static_cast<uint8_t>(c), static_cast<uint8_t>(c));
  return set;
}

void CodePointSet::add(char32_t low, char32_t high) {
  high = std::min(high, kMaxCodePoint);
  if (low < kFirstSurrogate && high > kLastSurrogate) {
    add(low, kFirstSurrogate - 1);
    return add(kLastSurrogate + 1, high);
  }
  if (low >= kFirstSurrogate && low <= kLastSurrogate) low = kLastSurrogate + 1;
  if (high >= kFirstSurrogate && high <= kLastSurrogate) high = kFirstSurrogate - 1;
  if (low > high) return;
  // The first range that touches or follows [low, high], and the first that lies behind it.
  const auto begin = std::lower_bound(ranges_.begin(), ranges_.end(), low,
                                      [](const Range& range, char32_t value) { return range.high + 1 < value; });
  auto end = begin;
  while (end != ranges_.end() && end->low <= high + 1) {
    low = std::min(low, end->low);
    high = std::max(high, end->high);
    ++end;
  }
  ranges_.insert(ranges_.erase(begin, end), {low, high});
}

void CodePointSet::add(const CodePointSet& other) {
  for (const Range& range : other.ranges_) add(range.low, range.high);
}

CodePointSet CodePointSet::complement() const {
  CodePointSet result;
  char32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.low > next) result.add(next, range.low - 1);
    next = range.high + 1;
  }
  if (next <= kMaxCodePoint) result.add(next, kMaxCodePoint);
  return result;
}

CodePointSet CodePointSet::intersection(const CodePointSet& other) const {
  CodePointSet result;
  size_t i = 0, j = 0;
  while (i < ranges_.size() && j < other.ranges_.size()) {
    const Range& a = ranges_[i];
    const Range& b = other.ranges_[j];
    const char32_t low = std::max(a.low, b.low), high = std::min(a.high, b.high);
    if (low <= high) result.ranges_.push_back({low, high});
    a.high < b.high ? ++i : ++j;
  }
  return result;
}

CodePointSet CodePointSet::ascii_case_folded() const {
  CodePointSet result = *this;
  for (char32_t lower = U'a'; lower <= U'z'; ++lower) {
    const char32_t upper = lower - U'a' + U'A';
    if (contains(lower)) result.add(upper, upper);
    if (contains(upper)) result.add(lower, lower);
  }
  return result;
}

bool CodePointSet::contains(char32_t code_point) const {
  const auto found = std::lower_bound(ranges_.begin(), ranges_.end(), code_point,
                                      [](const Range& range, char32_t value) { return range.high < value; });
  return found != ranges_.end() && found->low <= code_point;
}

HexDigits read_hex_digits(std::string_view text, size_t max_digits) {
  HexDigits result;
  for (const char c : text.substr(0, max_digits)) {
    char32_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<char32_t>(c - '0');
    } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
      digit = static_cast<char32_t>((c | 0x20) - 'a' + 10);
    } else {
      break;
    }
    result.value = std::min<char32_t>(result.value * 16 + digit, 0x110000);
    ++result.num_digits;
  }
  return result;
}

}  // namespace hadal
