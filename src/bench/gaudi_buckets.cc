#include "bench/gaudi_buckets.h"

#include <algorithm>
#include <charconv>

namespace hadal {
namespace {

constexpr int64_t kMostValues = 1 << 20;
constexpr int64_t kLargestValue = int64_t{1} << 31;  // so that the product of two is in range
// See kWarmupSource.
constexpr double kSecondsToCompile = 3600.0 / 252;
constexpr double kSecondsFromCache = 32.75 / 252;

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }
int64_t ceil_divide(int64_t value, int64_t by) { return (value + by - 1) / by; }

std::vector<int64_t> linear_values(const BucketRange& range) {
  std::vector<int64_t> values;
  for (int64_t v = range.min; v < range.step && v <= range.max; v *= 2) values.push_back(v);
  for (int64_t v = range.step; v <= range.max; v += range.step) {
    if (v >= range.min) values.push_back(v);
  }
  return values;
}

// A step is kept only where leaving it out would pad by more than the limit.
std::vector<int64_t> padding_ratio_values(const BucketRange& range) {
  std::vector<int64_t> values = {range.min};
  for (int64_t current = range.min; current <= range.max;) {
    const int64_t last = values.back();
    int64_t next = 0;
    if (current <= range.step) {
      next = 2 * last;
      if (next <= range.max) values.push_back(next);
    } else {
      next = current + range.step;
      const double padding = 1 - static_cast<double>(last) / static_cast<double>(next - 1);
      if (padding > range.limit && current != last) values.push_back(current);
    }
    current = next;
  }
  if (values.back() != range.max) values.push_back(range.max);
  return values;
}

void sort_as_peer(std::vector<Bucket>& buckets) {
  std::sort(buckets.begin(), buckets.end(), [](const Bucket& a, const Bucket& b) {
    return std::tuple(a.batch_size * a.length, a.length, a.batch_size) <
           std::tuple(b.batch_size * b.length, b.length, b.batch_size);
  });
}

std::vector<Bucket> decode_buckets(const std::vector<int64_t>& sizes, const std::vector<int64_t>& blocks,
                                   int64_t num_blocks) {
  std::vector<Bucket> buckets;
  for (const int64_t batch_size : sizes) {
    for (const int64_t count : blocks) {
      if (batch_size > count) continue;  // the peer compares before it caps: the last may have fewer blocks
      const bool is_last = num_blocks > 0 && count >= num_blocks;
      buckets.push_back({batch_size, is_last ? num_blocks : count});
      if (is_last) break;
    }
  }
  return buckets;
}

Status parse_into(const std::string& name, const std::string& text, int64_t* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  if (error == std::errc() && end == text.data() + text.size()) return {};
  return make_error(ErrorCode::kInvalidArgument, "{}={}: expected a whole number", name, text);
}

Status parse_into(const std::string& name, const std::string& text, double* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  const bool is_number = error == std::errc() && end == text.data() + text.size();
  if (is_number && *value >= 0 && *value <= 1) return {};
  return make_error(ErrorCode::kInvalidArgument, "{}={}: expected the share of padding, 0 to 1", name, text);
}

Expected<std::vector<int64_t>> named_values(const char* what, const BucketRange& range, BucketRule rule) {
  auto values = bucket_values(range, rule);
  if (!values) return forward_error(std::move(values), fmt::format("VLLM_{}_BUCKET_*", what));
  return values;
}

}  // namespace

Expected<std::vector<int64_t>> bucket_values(const BucketRange& range, BucketRule rule) {
  if (range.min < 1 || range.step < 1 || range.min > range.max || std::max(range.max, range.step) > kLargestValue) {
    return make_error(ErrorCode::kInvalidArgument,
                      "min {}, step {}, max {}: expected 1 <= min <= max, step >= 1, and at most {} for each",
                      range.min, range.step, range.max, kLargestValue);
  }
  if (!(range.limit >= 0 && range.limit <= 1)) {
    return make_error(ErrorCode::kInvalidArgument, "limit {}: expected the share of padding, 0 to 1", range.limit);
  }
  if (range.max / range.step > kMostValues) {
    return make_error(ErrorCode::kInvalidArgument, "max {} in steps of {}: more than {} values", range.max, range.step,
                      kMostValues);
  }
  return rule == BucketRule::kLinear ? linear_values(range) : padding_ratio_values(range);
}

BucketSettings single_node_buckets(int64_t max_model_len, int64_t max_num_seqs, int64_t max_num_prefill_seqs,
                                   int64_t decode_bs_step) {
  return {.prompt_bs = {1, 1, max_num_prefill_seqs},
          .prompt_seq = {128, 128, max_model_len},
          .decode_bs = {1, std::min(max_num_seqs, decode_bs_step), max_num_seqs},
          .decode_block = {128, 128, std::max<int64_t>(max_num_seqs * max_model_len / 128, 128)},
          .max_num_batched_tokens = max_model_len};
}

BucketSettings set_bucketing(const BucketingInputs& in) {
  constexpr int64_t kSeqStep = 128;  // whatever block_size is
  const int64_t bs_step = std::min<int64_t>(16, in.max_num_seqs);
  const int64_t decode_bs = round_up(in.max_num_seqs, bs_step);
  return {
      .prompt_bs = {1, 1, std::max<int64_t>(1, std::min(in.max_num_batched_tokens / in.input_min, in.max_num_seqs))},
      .prompt_seq = {round_up(in.input_min, kSeqStep), kSeqStep, round_up(in.input_max, kSeqStep) + kSeqStep},
      .decode_bs = {1, bs_step, decode_bs},
      .decode_block = {ceil_divide(in.input_min, in.block_size), decode_bs,
                       (ceil_divide(in.input_max + in.output_max, in.block_size) + 1) * decode_bs},
      .max_num_batched_tokens = in.max_num_batched_tokens};
}

Status apply_bucket_environment(const EnvironmentReader& read, BucketSettings* settings) {
  const std::pair<const char*, BucketRange*> ranges[] = {{"PROMPT_BS", &settings->prompt_bs},
                                                         {"PROMPT_SEQ", &settings->prompt_seq},
                                                         {"DECODE_BS", &settings->decode_bs},
                                                         {"DECODE_BLOCK", &settings->decode_block}};
  for (const auto& [what, range] : ranges) {
    const std::string prefix = fmt::format("VLLM_{}_BUCKET_", what);
    const auto apply = [&](const std::string& name, auto* value) -> Status {
      const auto text = read(name);
      return text ? parse_into(name, *text, value) : Status();
    };
    HADAL_RETURN_IF_ERROR(apply(prefix + "MIN", &range->min));
    HADAL_RETURN_IF_ERROR(apply(prefix + "STEP", &range->step));
    HADAL_RETURN_IF_ERROR(apply(prefix + "MAX", &range->max));
    HADAL_RETURN_IF_ERROR(apply("BUCKET_PADDING_RATIO", &range->limit));
    HADAL_RETURN_IF_ERROR(apply(prefix + "LIMIT", &range->limit));
  }
  return {};
}

Expected<BucketPlan> plan_buckets(const BucketSettings& settings) {
  HADAL_ASSIGN_OR_RETURN(const auto prompt_bs, named_values("PROMPT_BS", settings.prompt_bs, settings.rule));
  HADAL_ASSIGN_OR_RETURN(const auto prompt_seq, named_values("PROMPT_SEQ", settings.prompt_seq, settings.rule));
  HADAL_ASSIGN_OR_RETURN(const auto decode_bs, named_values("DECODE_BS", settings.decode_bs, settings.rule));
  HADAL_ASSIGN_OR_RETURN(const auto blocks, named_values("DECODE_BLOCK", settings.decode_block, settings.rule));
  for (const auto& [a, b] : {std::pair(prompt_bs.size(), prompt_seq.size()), {decode_bs.size(), blocks.size()}}) {
    if (a * b <= static_cast<size_t>(kMostValues)) continue;
    return make_error(ErrorCode::kInvalidArgument, "{} batch sizes times {} lengths: more than {} shapes", a, b,
                      kMostValues);
  }
  BucketPlan plan;
  std::vector<Bucket> all;
  for (const int64_t batch_size : prompt_bs) {
    for (const int64_t length : prompt_seq) {
      all.push_back({batch_size, length});
      if (batch_size * length <= settings.max_num_batched_tokens) plan.prompt.push_back(all.back());
    }
  }
  plan.num_omitted = plan.prompt.empty() ? 0 : all.size() - plan.prompt.size();
  plan.prompt_over_budget = plan.prompt.empty();
  if (plan.prompt_over_budget) plan.prompt = std::move(all);
  plan.decode = decode_buckets(decode_bs, blocks, settings.num_blocks);
  sort_as_peer(plan.prompt);
  sort_as_peer(plan.decode);
  return plan;
}

WarmupEstimate estimate_warmup(const BucketPlan& plan) {
  const double shapes = static_cast<double>(plan.prompt.size() + plan.decode.size());
  return {.first_start_s = shapes * kSecondsToCompile, .cached_start_s = shapes * kSecondsFromCache};
}

}  // namespace hadal
