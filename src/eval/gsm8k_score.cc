#include "eval/gsm8k_score.h"

#include <algorithm>

namespace hadal {
namespace {

constexpr std::string_view kMarker = "#### ";
constexpr std::string_view kDigits = "0123456789";
constexpr std::string_view kStrictCharacters = "0123456789.,";
constexpr std::string_view kFlexibleCharacters = "0123456789.,$";

// Length of the run of `characters` that begins at `begin`.
size_t run_length(std::string_view text, size_t begin, std::string_view characters) {
  return std::min(text.find_first_not_of(characters, begin), text.size()) - std::min(begin, text.size());
}

// Length of -?[characters]{least,} at `begin`; 0: no match.
size_t number_length(std::string_view text, size_t begin, std::string_view characters, size_t least) {
  const size_t minus = begin < text.size() && text[begin] == '-' ? 1 : 0;
  const size_t run = run_length(text, begin + minus, characters);
  return run >= least ? minus + run : 0;
}

}  // namespace

std::string strict_match(std::string_view answer) {
  for (size_t at = answer.find(kMarker); at != answer.npos; at = answer.find(kMarker, at + 1)) {
    const size_t begin = at + kMarker.size();
    const size_t length = number_length(answer, begin, kStrictCharacters, 1);
    if (length > 0) return std::string(answer.substr(begin, length));
  }
  return kUnparsedAnswer;
}

std::string flexible_extract(std::string_view answer) {
  std::string_view last = kUnparsedAnswer;
  for (size_t at = 0; at < answer.size();) {
    size_t length = number_length(answer, at, kFlexibleCharacters, 2);
    if (length == 0) length = number_length(answer, at, kDigits, 1);
    if (length > 0) last = answer.substr(at, length);
    at += std::max<size_t>(length, 1);
  }
  return std::string(last);
}

std::string normalize_answer(std::string_view text) {
  std::string kept(text);
  std::erase_if(kept, [](char c) { return c == ',' || c == '$'; });
  const size_t marker = kept.rfind(kMarker);
  if (marker != kept.npos) kept.erase(0, marker + kMarker.size());
  // "$" of a regular expression is also in front of a final line feed.
  const size_t end = kept.size() - (kept.ends_with('\n') ? 1 : 0);
  if (end > 0 && kept[end - 1] == '.') kept.erase(end - 1, 1);
  std::transform(kept.begin(), kept.end(), kept.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  return kept;
}

bool exact_match(std::string_view filtered, std::string_view target) {
  return normalize_answer(filtered) == normalize_answer(target);
}

}  // namespace hadal
