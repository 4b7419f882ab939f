// What a request forbids or favours, applied to one row of logits in the order of vLLM's V1 sampler: constraint,
// allowed_token_ids, bad words, min_tokens, logit_bias, repetition penalty, frequency and presence penalty.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"
#include "engine/token_counts.h"

namespace hadal {

struct RuleContext {
  const SamplingParams* params = nullptr;
  TokenConstraint* constraint = nullptr;  // may be null
  const TokenCounts* counts = nullptr;
  std::span<const int32_t> generated;      // tokens so far
  std::span<const int32_t> eos_token_ids;  // of the model
};

// Whether any rule would change anything for this token.
bool has_rules(const RuleContext& context);

// Forbidden tokens become -infinity. Where the request's own lists and min_tokens would leave a constraint no token at
// all, the constraint wins: an answer in a grammar may end early rather than fail. Ids outside the row are ignored.
// scratch: reused storage.
// May throw what the constraint throws.
void apply_rules(const RuleContext& context, std::span<float> logits, std::vector<float>& scratch);

}  // namespace hadal
