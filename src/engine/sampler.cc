#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>

#include "base/check.h"
#include "engine/random.h"

namespace hadal {
namespace {

// vLLM's bound: below it a temperature means greedy.
constexpr float kGreedyTemperature = 1e-5f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();  // of a token that is not forbidden

bool is_greedy(const SamplingParams& params) { return params.temperature < kGreedyTemperature; }

// Of the lowest logit that min-p leaves, from the highest one.
float min_p_depth(const SamplingParams& params) { return params.temperature * std::log(params.min_p); }

tl::unexpected<Error> bad_logits() {
  return make_error(ErrorCode::kInternal, "the model gave a logit that is NaN or infinite");
}

}  // namespace

Sampler::Sampler(int64_t vocab_size, int64_t num_valid_tokens, const RowMath& row_math)
    : vocab_size_(vocab_size),
      num_valid_tokens_(num_valid_tokens > 0 ? std::min(num_valid_tokens, vocab_size) : vocab_size),
      row_math_(&row_math),
      raw_(row_math),
      beyond_(row_math),
      adjusted_(row_math) {}

LogitWant Sampler::want(const RuleContext& rules) const {
  const SamplingParams& params = *rules.params;
  const bool describes = params.num_logprobs >= 0;
  const float scale = draw_scale(params);
  const bool draws_from_all = !is_greedy(params) && !draws_from_candidates(params);
  if (has_rules(rules) || draws_from_all || (describes && (params.processed_logprobs || (scale != 0 && scale != 1)))) {
    return {};
  }
  LogitWant want{.num_valid = static_cast<int32_t>(num_valid_tokens_),
                 .num_best = std::max<int32_t>(1, params.num_logprobs),
                 .exp_scale = describes ? 1 : scale};
  if (is_greedy(params)) return want;
  if (!restricts(params)) {
    want.nucleus = params.top_p;
    want.temperature = params.temperature;
  } else if (params.top_k > 0) {
    want.num_best = std::max(want.num_best, params.top_k);
  } else {
    want.depth = -min_p_depth(params);
  }
  return want;
}

Status Sampler::sample(float* logits, const SampleContext& context, TokenOutput& out, const PartialLogits& partial) {
  const SamplingParams& params = *context.rules.params;
  const bool applies_rules = has_rules(context.rules);
  HADAL_CHECK(partial.is_whole() || !applies_rules, "rules need the whole row");
  const bool describes = params.num_logprobs >= 0;
  const bool describes_raw = describes && !params.processed_logprobs;
  const float scale = draw_scale(params);
  const float raw_scale = describes_raw ? 1 : applies_rules ? 0 : scale;
  if (!partial.is_whole()) {
    adopt_raw(logits, raw_scale, partial);
  } else if (!scan_raw(logits, raw_scale)) {
    return bad_logits();
  }

  std::span<float> row(logits, num_valid_tokens_);
  if (applies_rules) {
    if (describes_raw) {
      working_.assign(row.begin(), row.end());
      row = working_;
    }
    try {
      apply_rules(context.rules, row, scratch_);
    } catch (const std::exception& e) {
      return make_error(ErrorCode::kInternal, "the token constraint failed: {}", e.what());
    }
  }
  const bool reuses_raw = !applies_rules && (scale == 0 || raw_.exp_scale() == scale);
  LogitBlocks& picked_from = reuses_raw ? raw_ : adjusted_;
  if (!reuses_raw && !adjusted_.scan(row, scale)) {
    return make_error(ErrorCode::kInvalidArgument, "penalties drove a logit out of range");
  }
  if (picked_from.max() == -kInfinity) {
    return make_error(ErrorCode::kInvalidArgument, "the request's settings forbid every token");
  }

  out.token_id = is_greedy(params) ? picked_from.first_of_max() : draw(picked_from, context);
  out.logprob.reset();
  out.top_logprobs.clear();
  if (describes_raw) {
    describe_raw(logits, out.token_id, params.num_logprobs, out);
  } else if (describes && draws_from_candidates(params)) {
    describe_candidates(params.num_logprobs, out);
  } else if (describes) {
    describe_row(picked_from, row[out.token_id], params.num_logprobs, out);
  }
  return {};
}

Status Sampler::describe(const float* logits, int32_t token_id, int32_t num_logprobs, TokenOutput& out) {
  if (!scan_raw(logits, 1) || std::max(raw_.max(), beyond_.max()) == -kInfinity) return bad_logits();
  out.token_id = token_id;
  out.top_logprobs.clear();
  describe_raw(logits, token_id, num_logprobs, out);
  return {};
}

bool Sampler::scan_raw(const float* logits, float exp_scale) {
  const std::span<const float> all(logits, vocab_size_);
  return raw_.scan(all.first(num_valid_tokens_), exp_scale) && beyond_.scan(all.subspan(num_valid_tokens_), exp_scale);
}

void Sampler::adopt_raw(const float* logits, float exp_scale, const PartialLogits& partial) {
  const std::span<const float> all(logits, vocab_size_);
  raw_.adopt(all.first(num_valid_tokens_), exp_scale, partial.maxima, partial.sums, partial.known);
  beyond_.adopt(all.subspan(num_valid_tokens_), exp_scale, partial.other_maxima, partial.other_sums, {});
}

void Sampler::describe_raw(const float* logits, int32_t token_id, int32_t num_logprobs, TokenOutput& out) {
  const float max = std::max(raw_.max(), beyond_.max());
  const double log_sum = std::log(raw_.exp_sum(max) + beyond_.exp_sum(max));
  const auto logprob_of = [&](float logit) { return static_cast<float>((double{logit} - max) - log_sum); };
  const float logit = logits[token_id];
  const auto num_better = static_cast<int32_t>(raw_.count_better({logit, token_id}));
  out.logprob = TokenLogprob{token_id, logprob_of(logit), num_better + 1};

  raw_.select_top(num_logprobs, top_);
  for (const Candidate& best : top_) {
    const int32_t rank = static_cast<int32_t>(out.top_logprobs.size()) + 1;
    out.top_logprobs.push_back({best.token_id, logprob_of(best.value), rank});
  }
}

// Whether min-p or top-k leave few enough candidates that the others' exponentials are not needed.
bool Sampler::restricts(const SamplingParams& params) const {
  return params.min_p > 0 || (params.top_k > 0 && params.top_k < num_valid_tokens_);
}

// Whether min-p, top-k or top-p leave candidates that the draw is among.
bool Sampler::draws_from_candidates(const SamplingParams& params) const {
  return !is_greedy(params) && (restricts(params) || params.top_p < 1);
}

// The scale of the exponentials of a whole row that the draw, or its description, needs; 0: none.
float Sampler::draw_scale(const SamplingParams& params) const {
  if (is_greedy(params)) return params.processed_logprobs && params.num_logprobs >= 0 ? 1 : 0;
  return restricts(params) ? 0 : 1 / params.temperature;
}

// By the row that the token was picked from, scanned with its exponentials.
void Sampler::describe_row(LogitBlocks& row, float logit, int32_t num_logprobs, TokenOutput& out) const {
  const double log_sum = std::log(row.exp_sum(row.max()));
  const auto logprob_of = [&](float value) {
    return static_cast<float>((double{value} - row.max()) * row.exp_scale() - log_sum);
  };
  const auto num_better = static_cast<int32_t>(row.count_better({logit, out.token_id}));
  out.logprob = TokenLogprob{out.token_id, logprob_of(logit), num_better + 1};
  std::vector<Candidate> top;
  row.select_top(num_logprobs, top);
  for (const Candidate& best : top) {
    const int32_t rank = static_cast<int32_t>(out.top_logprobs.size()) + 1;
    out.top_logprobs.push_back({best.token_id, logprob_of(best.value), rank});
  }
}

// By the candidates' probabilities.
void Sampler::describe_candidates(int32_t num_logprobs, TokenOutput& out) const {
  std::vector<Candidate> sorted = candidates_;
  std::sort(sorted.begin(), sorted.end(), ranks_before);
  double total = 0;
  for (const Candidate& candidate : sorted) total += candidate.value;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const bool is_listed = static_cast<int64_t>(i) < num_logprobs && sorted[i].value > 0;
    if (!is_listed && sorted[i].token_id != out.token_id) continue;
    const auto logprob = static_cast<float>(std::log(sorted[i].value / total));
    const TokenLogprob described{sorted[i].token_id, logprob, static_cast<int32_t>(i) + 1};
    if (is_listed) out.top_logprobs.push_back(described);
    if (sorted[i].token_id == out.token_id) out.logprob = described;
  }
}

int32_t Sampler::draw(LogitBlocks& row, const SampleContext& context) {
  const SamplingParams& params = *context.rules.params;
  const double noise = sampling_noise(context.seed, context.sample_idx, context.position);
  if (restricts(params)) {
    gather_restricted(row, params);
  } else if (params.top_p < 1) {
    total_ = *select_likely(*row_math_, row, params.temperature, params.top_p, -kInfinity, candidates_, scratch_);
  } else {
    return row.draw(noise);
  }
  if (params.top_p < 1) keep_nucleus(candidates_, double{params.top_p} * total_, top_);
  return draw_from_candidates(noise);
}

// What min-p and top-k leave.
void Sampler::gather_restricted(LogitBlocks& row, const SamplingParams& params) {
  float threshold = kLowest;
  if (params.min_p > 0) threshold = std::max(threshold, row.max() + min_p_depth(params));
  if (params.top_k > 0 && params.top_k < row.size()) {
    row.select_top(params.top_k, top_);
    if (static_cast<int64_t>(top_.size()) == params.top_k) threshold = std::max(threshold, top_.back().value);
  }
  row.select_at_least(threshold, candidates_);
  total_ = weigh_candidates(*row_math_, row.max(), 1 / params.temperature, candidates_, scratch_);
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

}  // namespace hadal
