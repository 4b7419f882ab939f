// Picks the next token from one row of logits, and says how likely tokens were.
//
// Order (vLLM's V1): rules of the request (logit_rules.h); greedy: the highest, lowest id among equals; else divide by
// temperature, min-p, top-k (all ties of the k-th stay), top-p (the smallest set that reaches the mass), draw.
// The draw is the inverse of the cumulative distribution at sampling_noise(seed, sample index, position), summed in
// double: with equal logits a request's tokens do not depend on the batch.
// Log-probabilities are the log-softmax of the logits as the model gave them. Single-owner: the engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/logit_math.h"
#include "engine/logit_rules.h"
#include "engine/request.h"

namespace hadal {

struct SampleContext {
  RuleContext rules;
  uint64_t seed = 0;
  uint64_t sample_idx = 0;
  uint64_t position = 0;  // absolute, of the token to be picked
};

class Sampler {
 public:
  // Only ids below num_valid_tokens are picked or listed; the softmax runs over the whole vocabulary.
  Sampler(int64_t vocab_size, int64_t num_valid_tokens);

  // logits: f32 [vocab_size], overwritten when rules apply. out: replaced.
  // Errors, with the constraint not advanced: kInternal (a logit is NaN or +infinity), kInvalidArgument (the rules
  // forbid every token), kInternal (the constraint threw). Cost: two reads for greedy, about three for top-k; no
  // allocation once warm, except top_logprobs.
  Status sample(float* logits, const SampleContext& context, TokenOutput& out);

  // Describes a given token: logprob, rank, the num_logprobs best. Errors: kInternal as above.
  Status describe(const float* logits, int32_t token_id, int32_t num_logprobs, TokenOutput& out);

 private:
  int32_t draw(std::span<const float> logits, float max, const SampleContext& context);
  int32_t draw_from_all(double noise) const;
  int32_t draw_from_candidates(double noise) const;
  bool gather_candidates(std::span<const float> logits, float max, const SamplingParams& params);
  void fill_logprobs(std::span<const float> raw, float max, int32_t token_id, int32_t num_logprobs, TokenOutput& out);

  int64_t vocab_size_;
  int64_t num_valid_tokens_;
  std::vector<float> working_;  // logits after rules, when the raw ones are still needed
  std::vector<float> scratch_;
  std::vector<float> probs_;           // [num_valid_tokens], unnormalised
  std::vector<double> block_sums_;     // of probs_
  double total_ = 0;                   // of probs_, or of candidates_ before top-p
  std::vector<Candidate> candidates_;  // value: unnormalised probability
  std::vector<Candidate> top_;
};

}  // namespace hadal
