// What lm_eval's gsm8k task (version 3) makes of an answer: its two filters and its exact_match.
// Judged by goldens of lm_eval's own code (gsm8k_score_golden.json).
#pragma once

#include <string>
#include <string_view>

namespace hadal {

// What a filter gives for an answer in which it finds nothing.
inline constexpr const char* kUnparsedAnswer = "[invalid]";

// "strict-match": the first number behind "#### ", as it is written.
std::string strict_match(std::string_view answer);
// "flexible-extract": the last thing that looks like a number: two or more of "$0-9.,", or digits; with its minus.
std::string flexible_extract(std::string_view answer);

// `text` without commas, dollar signs, everything up to the last "#### " and a final dot; ASCII letters lowered.
std::string normalize_answer(std::string_view text);
// Equal once both are normalised. `target`: the data set's whole answer, with its "#### 18" at the end.
bool exact_match(std::string_view filtered, std::string_view target);

}  // namespace hadal
