// Regexes of pre-tokenizers, run by PCRE2 with its JIT. Used by pre_tokenizer.h only.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hadal {

// Rewrites a Split regex of tokenizer.json (Oniguruma syntax, Unicode) into a PCRE2 regex with the same matches:
// `\s` becomes the White_Space characters (PCRE2's has one more), a script name means the script, not its extensions.
// Errors: kUnsupported naming the construct where the two dialects differ, or might.
Expected<std::string> translate_split_regex(std::string_view pattern);

// The pre-tokenizer of Kimi-K2 and Moonlight, in PCRE2 form: its class intersections, which PCRE2 lacks, are written as
// negated classes with the same characters.
std::string kimi_split_regex();

// Immutable, thread-safe.
class SplitRegex {
 public:
  // `pcre2_pattern`: as the functions above return it. Errors: kCorrupt for a broken pattern, kUnsupported for one that
  // can match the empty string.
  static Expected<SplitRegex> compile(const std::string& pcre2_pattern);

  struct Match {
    size_t begin = 0, end = 0;  // begin == end: no match
  };
  // The first match in text[start..]. The text must be valid UTF-8 (not checked again: that would be quadratic).
  // Errors: kInternal with PCRE2's message; "no match" is never one.
  Expected<Match> find(std::string_view text, size_t start) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace hadal
