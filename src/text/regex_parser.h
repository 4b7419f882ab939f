// Regular expressions as users write them (Perl, Python, ECMAScript) as a tree. What a finite automaton cannot do, or
// what the dialects disagree about, is refused by name. Used by regex_grammar.h only.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/code_point_set.h"

namespace hadal {

struct RegexNode {
  enum class Kind { kEmpty, kSet, kSequence, kChoice, kRepeat, kBegin, kEnd };
  static constexpr uint32_t kUnbounded = UINT32_MAX;

  Kind kind = Kind::kEmpty;
  CodePointSet set;              // kSet: one character
  std::vector<RegexNode> parts;  // kSequence, kChoice; kRepeat: one
  uint32_t min = 0, max = 0;     // kRepeat
};

// `.` is any character but line ends; \d \w \s are ASCII, as in ECMAScript; lazy quantifiers mean the same texts as
// greedy ones. Errors: kInvalidArgument (syntax, with the byte), kUnsupported (names the construct).
Expected<RegexNode> parse_regex(std::string_view pattern);

}  // namespace hadal
