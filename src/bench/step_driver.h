// Runs forward steps as the engine would lay them out, without an engine: prompts in chunks, decode steps of a batch at
// a depth. Random token ids, new ones in every step, so that routing varies.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "base/status.h"
#include "engine/sampler.h"
#include "model/forward_model.h"

namespace hadal {

inline constexpr int64_t kBenchBlockSize = 64;  // tokens; the server's defaults
inline constexpr int64_t kBenchTileTokens = 256;

struct StepLimits {
  int64_t num_blocks = 0;  // allocated, of kBenchBlockSize tokens
  int64_t max_num_batched_tokens = 2048;
  int64_t max_batch = 1;
};

struct TimedStep {
  double seconds = 0;     // forward and sampling
  double sampling_s = 0;  // greedy, of every sequence that has logits
};

// Blocks of the cache that `batch` sequences of `num_tokens` tokens take.
int64_t blocks_for(int64_t batch, int64_t num_tokens);

// Single-owner, as the model. Requires the model's cache allocated for the limits.
class StepDriver {
 public:
  StepDriver(ForwardModel& model, const StepLimits& limits, uint64_t seed);

  // A whole prompt, cut where the scheduler would cut it; the last row's logits are sampled.
  Expected<TimedStep> prefill(int64_t num_tokens);
  // One token for each of `batch` sequences, all at position `depth`; earlier cache rows are whatever is there.
  Expected<TimedStep> decode(int64_t batch, int64_t depth);

 private:
  // Runs the step laid out in spans_ and logit_rows_ and adds its times.
  Status run(int64_t num_tokens, TimedStep& timed);

  ForwardModel& model_;
  const StepLimits limits_;
  std::mt19937_64 random_;
  Sampler sampler_;
  SamplingParams greedy_;
  TokenCounts no_counts_;
  TokenOutput sampled_;
  std::unique_ptr<float[]> logits_;  // f32 [max_batch, vocab_size]
  std::vector<int32_t> token_ids_, logit_rows_, block_ids_;
  std::vector<LogitWant> logit_wants_;
  std::vector<SequenceSpan> spans_;
};

}  // namespace hadal
