#include "bench/step_driver.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "base/check.h"
#include "engine/scheduler_policy.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

}  // namespace

int64_t blocks_for(int64_t batch, int64_t num_tokens) {
  return batch * ((num_tokens + kBenchBlockSize - 1) / kBenchBlockSize);
}

StepDriver::StepDriver(ForwardModel& model, const StepLimits& limits, uint64_t seed)
    : model_(model), limits_(limits), random_(seed), sampler_(model.vocab_size(), 0) {
  greedy_.temperature = 0;
  logits_ = std::make_unique<float[]>(static_cast<size_t>(limits.max_batch * model.vocab_size()));
  block_ids_.resize(static_cast<size_t>(limits.num_blocks));
  std::iota(block_ids_.begin(), block_ids_.end(), 0);
}

Expected<TimedStep> StepDriver::prefill(int64_t num_tokens) {
  HADAL_CHECK(blocks_for(1, num_tokens) <= limits_.num_blocks, "{} tokens do not fit the cache", num_tokens);
  const int64_t expanded_end = num_tokens / kBenchTileTokens * kBenchTileTokens;
  TimedStep timed;
  for (int64_t done = 0; done < num_tokens;) {
    const int64_t chunk = chunk_tokens({.first_position = done,
                                        .num_remaining_tokens = num_tokens - done,
                                        .expanded_end = expanded_end,
                                        .tile_tokens = kBenchTileTokens,
                                        .budget_tokens = limits_.max_num_batched_tokens});
    const bool is_last = done + chunk == num_tokens;
    spans_ = {{.num_tokens = chunk,
               .first_position = done,
               .expanded_end = expanded_end,
               .block_table = std::span(block_ids_).first(static_cast<size_t>(blocks_for(1, done + chunk)))}};
    logit_rows_.clear();
    if (is_last) logit_rows_.push_back(static_cast<int32_t>(chunk - 1));
    HADAL_RETURN_IF_ERROR(run(chunk, timed));
    done += chunk;
  }
  return timed;
}

Expected<TimedStep> StepDriver::decode(int64_t batch, int64_t depth) {
  const int64_t blocks_each = blocks_for(1, depth + 1);
  HADAL_CHECK(batch <= limits_.max_batch && batch * blocks_each <= limits_.num_blocks, "{} sequences at {}", batch,
              depth);
  spans_.clear();
  logit_rows_.clear();
  for (int64_t i = 0; i < batch; ++i) {
    spans_.push_back(
        {.token_begin = i,
         .num_tokens = 1,
         .first_position = depth,
         .expanded_end = depth / kBenchTileTokens * kBenchTileTokens,
         .block_table =
             std::span(block_ids_).subspan(static_cast<size_t>(i * blocks_each), static_cast<size_t>(blocks_each))});
    logit_rows_.push_back(static_cast<int32_t>(i));
  }
  TimedStep timed;
  HADAL_RETURN_IF_ERROR(run(batch, timed));
  return timed;
}

Status StepDriver::run(int64_t num_tokens, TimedStep& timed) {
  token_ids_.resize(static_cast<size_t>(num_tokens));
  for (int32_t& id : token_ids_) {
    id = static_cast<int32_t>(random_() % static_cast<uint64_t>(model_.vocab_size()));
  }
  const SampleContext context = {.rules = {.params = &greedy_, .counts = &no_counts_}};
  logit_wants_.assign(logit_rows_.size(), sampler_.want(context.rules));
  const auto begin = Clock::now();
  HADAL_RETURN_IF_ERROR(model_.forward(
      {.token_ids = token_ids_, .sequences = spans_, .logit_rows = logit_rows_, .logit_wants = logit_wants_},
      logits_.get()));
  const auto forward_end = Clock::now();
  for (size_t row = 0; row < logit_rows_.size(); ++row) {
    const auto idx = static_cast<int64_t>(row);
    float* logits = logits_.get() + idx * model_.vocab_size();
    HADAL_RETURN_IF_ERROR(sampler_.sample(logits, context, sampled_, model_.partial_logits(idx)));
  }
  timed.sampling_s += seconds_since(forward_end);
  timed.seconds += seconds_since(begin);
  return {};
}

}  // namespace hadal
