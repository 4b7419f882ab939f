#include "bench/gaudi_buckets_text.h"

#include <algorithm>
#include <tuple>

namespace hadal {
namespace {

std::string range_text(const BucketRange& range) {
  return fmt::format("[{}, {}, {}]", range.min, range.step, range.max);
}

std::string list_text(std::vector<Bucket> buckets) {
  std::sort(buckets.begin(), buckets.end(), [](const Bucket& a, const Bucket& b) {
    return std::tie(a.batch_size, a.length) < std::tie(b.batch_size, b.length);
  });
  std::string text;
  for (const Bucket& bucket : buckets) {
    text += fmt::format("{}({}, {})", text.empty() ? "" : ", ", bucket.batch_size, bucket.length);
  }
  return "[" + text + "]";
}

Json range_to_json(const BucketRange& range) {
  return {{"min", range.min}, {"step", range.step}, {"max", range.max}, {"limit", range.limit}};
}

Json list_to_json(const std::vector<Bucket>& buckets) {
  Json list = Json::array();
  for (const Bucket& bucket : buckets) list.push_back(Json::array({bucket.batch_size, bucket.length}));
  return list;
}

}  // namespace

std::string bucket_lines(const BucketSettings& settings, const BucketPlan& plan) {
  return fmt::format(
      "Prompt bucket config (min, step, max_warmup) bs:{}, seq:{}\n"
      "Decode bucket config (min, step, max_warmup) bs:{}, block:{}\n"
      "Generated {} prompt buckets [bs, seq]: {}\n"
      "Omitted {} prompt buckets due to exceeded token budget (max_num_batched_tokens={})\n"
      "Generated {} decode buckets [bs, total_blocks]: {}\n",
      range_text(settings.prompt_bs), range_text(settings.prompt_seq), range_text(settings.decode_bs),
      range_text(settings.decode_block), plan.prompt.size(), list_text(plan.prompt), plan.num_omitted,
      settings.max_num_batched_tokens, plan.decode.size(), list_text(plan.decode));
}

Json bucket_plan_to_json(const BucketSettings& settings, const BucketPlan& plan) {
  const WarmupEstimate warmup = estimate_warmup(plan);
  return {
      {"rule", settings.rule == BucketRule::kLinear ? "linear" : "padding-ratio"},
      {"max_num_batched_tokens", settings.max_num_batched_tokens},
      {"ranges",
       {{"prompt_bs", range_to_json(settings.prompt_bs)},
        {"prompt_seq", range_to_json(settings.prompt_seq)},
        {"decode_bs", range_to_json(settings.decode_bs)},
        {"decode_block", range_to_json(settings.decode_block)}}},
      {"num_prompt", plan.prompt.size()},
      {"num_decode", plan.decode.size()},
      {"num_omitted", plan.num_omitted},
      {"prompt_over_budget", plan.prompt_over_budget},
      {"prompt", list_to_json(plan.prompt)},
      {"decode", list_to_json(plan.decode)},
      {"warm_up",
       {{"first_start_s", warmup.first_start_s}, {"cached_start_s", warmup.cached_start_s}, {"source", kWarmupSource}}},
      {"buckets_needed_here", 0}};
}

}  // namespace hadal
