// What a calibration saw, for people.
#pragma once

#include <cstdint>
#include <string>

#include "quant/range_set.h"

namespace hadal {

// Below this many tokens an expert's range is called thin: its largest magnitude is then a draw of few. Of DeepSeek-R1,
// 512 prompts give an expert 16,880 tokens on average.
inline constexpr uint64_t kFewExpertTokens = 100;

// Tokens per expert, and which experts saw none or few, by layer. "" for a model without experts.
std::string coverage_text(const RangeSet& ranges);

}  // namespace hadal
