// Picks the next token from one row of logits, and says how likely tokens were.
//
// Order (vLLM's V1): rules of the request (logit_rules.h); greedy: the highest, lowest id among equals; else divide by
// temperature, min-p, top-k (all ties of the k-th stay), top-p (the smallest set that reaches the mass), draw.
// The draw is the inverse of the cumulative distribution at sampling_noise(seed, sample index, position), summed in an
// order fixed by the row: with equal logits and RowMath a request's tokens do not depend on the batch.
// Log-probabilities are the log-softmax of the logits as the model gave them; with processed_logprobs those of the
// distribution that is drawn from (greedy: after the rules), where tokens without a chance are not listed.
// Single-owner: the engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "engine/logit_rules.h"
#include "engine/request.h"
#include "kernels/logit_math.h"
#include "model/forward_model.h"

namespace hadal {

struct SampleContext {
  RuleContext rules;
  uint64_t seed = 0;
  uint64_t sample_idx = 0;
  uint64_t position = 0;  // absolute, of the token to be picked
};

class Sampler {
 public:
  // Only ids below num_valid_tokens are picked or listed (0: all are valid); the softmax runs over the whole
  // vocabulary.
  Sampler(int64_t vocab_size, int64_t num_valid_tokens, const RowMath& row_math = fastest_row_math());

  // What sample() needs of the row, when nothing about the request changes until then: all of it when rules apply,
  // when any token may be drawn, and when sums at two scales are needed.
  LogitWant want(const RuleContext& rules) const;

  // logits: f32 [vocab_size], overwritten when rules apply. partial: of a row that holds only what want() said. out:
  // replaced.
  // Errors, with the constraint not advanced: kInternal (a logit is NaN or +infinity), kInvalidArgument (the rules
  // forbid every token), kInternal (the constraint threw). Cost: the row is read once, with its exponentials if the
  // draw or log-probabilities need them; again after rules, and when the two need different ones. No allocation once
  // warm, except top_logprobs.
  Status sample(float* logits, const SampleContext& context, TokenOutput& out, const PartialLogits& partial = {});

  // Describes a given token: logprob, rank, the num_logprobs best. Errors: kInternal as above.
  Status describe(const float* logits, int32_t token_id, int32_t num_logprobs, TokenOutput& out);

 private:
  bool scan_raw(const float* logits, float exp_scale);
  void adopt_raw(const float* logits, float exp_scale, const PartialLogits& partial);
  float draw_scale(const SamplingParams& params) const;
  bool draws_from_candidates(const SamplingParams& params) const;
  void describe_row(LogitBlocks& row, float logit, int32_t num_logprobs, TokenOutput& out) const;
  void describe_candidates(int32_t num_logprobs, TokenOutput& out) const;
  int32_t draw(LogitBlocks& row, const SampleContext& context);
  bool restricts(const SamplingParams& params) const;
  void gather_restricted(LogitBlocks& row, const SamplingParams& params);
  int32_t draw_from_candidates(double noise) const;
  void describe_raw(const float* logits, int32_t token_id, int32_t num_logprobs, TokenOutput& out);

  int64_t vocab_size_;
  int64_t num_valid_tokens_;
  const RowMath* row_math_;
  LogitBlocks raw_;             // valid tokens as the model gave them
  LogitBlocks beyond_;          // the others
  LogitBlocks adjusted_;        // valid tokens after rules, or with the draw's exponentials
  std::vector<float> working_;  // logits after rules, when the raw ones are still needed
  std::vector<float> scratch_;
  std::vector<Candidate> candidates_;  // value: the logit, then its unnormalised probability
  double total_ = 0;                   // of the probabilities that top-p is a share of
  std::vector<Candidate> top_;
};

}  // namespace hadal
