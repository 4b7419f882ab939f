#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>

#include "engine/random.h"

namespace hadal {
namespace {

// vLLM's bound: below it a temperature means greedy.
constexpr float kGreedyTemperature = 1e-5f;

tl::unexpected<Error> bad_logits() {
  return make_error(ErrorCode::kInternal, "the model gave a logit that is NaN or infinite");
}

}  // namespace

Sampler::Sampler(int64_t vocab_size, int64_t num_valid_tokens)
    : vocab_size_(vocab_size),
      num_valid_tokens_(num_valid_tokens > 0 ? std::min(num_valid_tokens, vocab_size) : vocab_size) {}

Status Sampler::sample(float* logits, const SampleContext& context, TokenOutput& out) {
  const SamplingParams& params = *context.rules.params;
  const std::span<const float> raw(logits, vocab_size_);
  const LogitScan raw_scan = scan_logits(raw);
  if (!raw_scan.is_valid) return bad_logits();

  std::span<float> row(logits, num_valid_tokens_);
  LogitScan scan = raw_scan;
  const bool applies_rules = has_rules(context.rules);
  if (applies_rules) {
    if (params.num_logprobs >= 0) {
      working_.assign(row.begin(), row.end());
      row = working_;
    }
    try {
      apply_rules(context.rules, row, scratch_);
    } catch (const std::exception& e) {
      return make_error(ErrorCode::kInternal, "the token constraint failed: {}", e.what());
    }
  }
  if (applies_rules || num_valid_tokens_ < vocab_size_) scan = scan_logits(row);
  if (!scan.is_valid) return make_error(ErrorCode::kInvalidArgument, "penalties drove a logit out of range");
  if (scan.max == -std::numeric_limits<float>::infinity()) {
    return make_error(ErrorCode::kInvalidArgument, "the request's settings forbid every token");
  }

  out.token_id = params.temperature < kGreedyTemperature ? first_index_of(row, scan.max) : draw(row, scan.max, context);
  out.logprob.reset();
  out.top_logprobs.clear();
  if (params.num_logprobs >= 0) fill_logprobs(raw, raw_scan.max, out.token_id, params.num_logprobs, out);
  return {};
}

Status Sampler::describe(const float* logits, int32_t token_id, int32_t num_logprobs, TokenOutput& out) {
  const std::span<const float> raw(logits, vocab_size_);
  const LogitScan scan = scan_logits(raw);
  if (!scan.is_valid || scan.max == -std::numeric_limits<float>::infinity()) return bad_logits();
  out.token_id = token_id;
  out.top_logprobs.clear();
  fill_logprobs(raw, scan.max, token_id, num_logprobs, out);
  return {};
}

void Sampler::fill_logprobs(std::span<const float> raw, float max, int32_t token_id, int32_t num_logprobs,
                            TokenOutput& out) {
  const double log_sum = std::log(exp_pass(raw, max, 1, nullptr, nullptr));
  const auto logprob_of = [&](float logit) { return static_cast<float>((double{logit} - max) - log_sum); };
  const std::span<const float> valid = raw.first(num_valid_tokens_);
  const float logit = raw[token_id];
  const int32_t num_better = count_better(valid, {logit, token_id});
  out.logprob = TokenLogprob{token_id, logprob_of(logit), num_better + 1};

  select_top(valid, num_logprobs, top_);
  for (const Candidate& best : top_) {
    const int32_t rank = static_cast<int32_t>(out.top_logprobs.size()) + 1;
    out.top_logprobs.push_back({best.token_id, logprob_of(best.value), rank});
  }
}

int32_t Sampler::draw(std::span<const float> logits, float max, const SampleContext& context) {
  const SamplingParams& params = *context.rules.params;
  const double noise = sampling_noise(context.seed, context.sample_idx, context.position);
  if (!gather_candidates(logits, max, params)) return draw_from_all(noise);
  if (params.top_p < 1) keep_nucleus(candidates_, double{params.top_p} * total_, top_);
  return draw_from_candidates(noise);
}

// False: every token is a candidate, and probs_ describes them.
bool Sampler::gather_candidates(std::span<const float> logits, float max, const SamplingParams& params) {
  const float scale = 1 / params.temperature;
  float threshold = -std::numeric_limits<float>::infinity();
  if (params.min_p > 0) threshold = max + params.temperature * std::log(params.min_p);
  if (params.top_k > 0 && params.top_k < static_cast<int64_t>(logits.size())) {
    select_top(logits, params.top_k, top_);
    threshold = std::max(threshold, top_.back().value);
  }
  if (threshold > -std::numeric_limits<float>::infinity()) {
    select_at_least(logits, threshold, candidates_);
    scratch_.clear();
    for (const Candidate& candidate : candidates_) scratch_.push_back(candidate.value);
    total_ = exp_pass(scratch_, max, scale, scratch_.data(), nullptr);
    for (size_t i = 0; i < candidates_.size(); ++i) candidates_[i].value = scratch_[i];
    return true;
  }
  probs_.resize(logits.size());
  total_ = exp_pass(logits, max, scale, probs_.data(), &block_sums_);
  if (params.top_p >= 1) return false;
  // All tokens below this together have less than the mass that top-p drops: none of them can be in the nucleus. Half
  // of it leaves room for rounding.
  const float negligible = static_cast<float>(0.5 * (1 - double{params.top_p}) * total_ / logits.size());
  select_at_least(probs_, negligible, candidates_);
  return true;
}

int32_t Sampler::draw_from_candidates(double noise) const {
  double total = 0;
  for (const Candidate& candidate : candidates_) total += candidate.value;
  const double target = noise * total;
  double sum = 0;
  int32_t last = candidates_.front().token_id;
  for (const Candidate& candidate : candidates_) {
    if (candidate.value <= 0) continue;
    sum += candidate.value;
    last = candidate.token_id;
    if (sum > target) return last;
  }
  return last;  // rounding left the sum just below the target
}

int32_t Sampler::draw_from_all(double noise) const {
  const double target = noise * total_;
  double sum = 0;
  size_t block = 0;
  for (; block + 1 < block_sums_.size() && sum + block_sums_[block] <= target; ++block) sum += block_sums_[block];
  int32_t last = -1;
  const size_t size = probs_.size();
  // Rounding may leave nothing in that block beyond the target: then the next token with any probability is it.
  for (size_t id = block * kExpBlock; id < size; ++id) {
    if (probs_[id] <= 0) continue;
    sum += probs_[id];
    last = static_cast<int32_t>(id);
    if (sum > target) return last;
  }
  if (last >= 0) return last;
  return static_cast<int32_t>(std::max_element(probs_.begin(), probs_.end()) - probs_.begin());
}

}  // namespace hadal
