#include "bench/gaudi_buckets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace hadal {
namespace {

using ::testing::HasSubstr;

std::vector<int64_t> limited(BucketRange range) { return bucket_values(range, BucketRule::kPaddingRatio).value(); }

// Lists that the extension makes (spec of the Gaudi pipeline, section 6.4).
TEST(GaudiBuckets, PaddingRatioListsAreThePeers) {
  EXPECT_EQ(limited({1, 2, 8}), (std::vector<int64_t>{1, 2, 4, 6, 8}));
  EXPECT_EQ(limited({128, 128, 16384}), (std::vector<int64_t>{128, 256, 384, 512, 640, 768, 1024, 1280, 1664, 2176,
                                                              2816, 3712, 4864, 6400, 8448, 11264, 14976, 16384}));
  EXPECT_EQ(limited({1, 8, 64}), (std::vector<int64_t>{1, 2, 4, 8, 16, 24, 32, 40, 48, 64}));
  EXPECT_EQ(limited({1, 8, 128}), (std::vector<int64_t>{1, 2, 4, 8, 16, 24, 32, 40, 48, 64, 80, 104, 128}));
  EXPECT_EQ(limited({128, 128, 8192}),
            (std::vector<int64_t>{128, 256, 384, 512, 640, 768, 1024, 1280, 1664, 2176, 2816, 3712, 4864, 6400, 8192}));
  EXPECT_EQ(limited({1, 1, 42}), (std::vector<int64_t>{1, 2, 3, 5, 7, 10, 14, 19, 26, 35, 42}));
  EXPECT_EQ(limited({768, 128, 20608}), (std::vector<int64_t>{768, 1024, 1280, 1664, 2176, 2816, 3712, 4864, 6400, 8448,
                                                              11264, 14976, 19968, 20608}));
  EXPECT_EQ(limited({1, 16, 512}),
            (std::vector<int64_t>{1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 160, 208, 272, 352, 464, 512}));
  EXPECT_EQ(limited({6, 512, 150016}).size(), 28u);
}

TEST(GaudiBuckets, LinearListsAreThePeers) {
  const std::pair<BucketRange, size_t> cases[] = {
      {{128, 128, 16384}, 128}, {{1, 8, 64}, 11},         {{1, 8, 128}, 19},  {{128, 128, 8192}, 64},
      {{1, 1, 42}, 42},         {{768, 128, 20608}, 156}, {{1, 16, 512}, 36}, {{6, 512, 150016}, 300}};
  for (const auto& [range, count] : cases) {
    EXPECT_EQ(bucket_values(range, BucketRule::kLinear).value().size(), count) << range.max;
  }
}

std::pair<size_t, size_t> totals(BucketSettings settings, BucketRule rule) {
  settings.rule = rule;
  const BucketPlan plan = plan_buckets(settings).value();
  return {plan.prompt.size(), plan.decode.size()};
}

TEST(GaudiBuckets, TotalsAreThePeers) {
  using Totals = std::pair<size_t, size_t>;
  const BucketSettings one_node = single_node_buckets(16384, 64, 1);
  EXPECT_EQ(totals(one_node, BucketRule::kLinear), Totals(128, 704));
  EXPECT_EQ(totals(one_node, BucketRule::kPaddingRatio), Totals(18, 150));
  const BucketSettings wide = single_node_buckets(16384, 128, 1);
  EXPECT_EQ(totals(wide, BucketRule::kLinear), Totals(128, 2432));
  EXPECT_EQ(totals(wide, BucketRule::kPaddingRatio), Totals(18, 234));
  const BucketSettings two_nodes = set_bucketing({.max_num_batched_tokens = 32768,
                                                  .max_num_seqs = 512,
                                                  .input_min = 768,
                                                  .input_max = 20480,
                                                  .output_max = 16896});
  EXPECT_EQ(two_nodes.prompt_bs.max, 42);
  EXPECT_EQ(two_nodes.prompt_seq.max, 20608);
  EXPECT_EQ(two_nodes.decode_block.min, 6);
  EXPECT_EQ(two_nodes.decode_block.max, 150016);
  EXPECT_EQ(totals(two_nodes, BucketRule::kLinear), Totals(787, 10621));
  EXPECT_EQ(totals(two_nodes, BucketRule::kPaddingRatio), Totals(71, 413));
}

TEST(GaudiBuckets, OrderAndEdges) {
  BucketSettings settings{.prompt_bs = {1, 1, 2},
                          .prompt_seq = {128, 128, 256},
                          .decode_bs = {1, 2, 4},
                          .decode_block = {2, 2, 8},
                          .max_num_batched_tokens = 256,
                          .num_blocks = 5};
  settings.rule = BucketRule::kLinear;
  const BucketPlan plan = plan_buckets(settings).value();
  const auto text = [](const std::vector<Bucket>& buckets) {
    std::string out;
    for (const Bucket& bucket : buckets) out += fmt::format("{}x{} ", bucket.batch_size, bucket.length);
    return out;
  };
  EXPECT_EQ(text(plan.prompt), "1x128 2x128 1x256 ");
  EXPECT_EQ(text(plan.decode),
            "1x2 2x2 1x4 1x5 2x4 2x5 4x4 4x5 ");  // 5 blocks end a row; no more sequences than blocks
  settings.max_num_batched_tokens = 1;
  const BucketPlan over = plan_buckets(settings).value();
  EXPECT_TRUE(over.prompt_over_budget);
  EXPECT_EQ(over.prompt.size(), 4u);
}

TEST(GaudiBuckets, ReadsTheForksVariables) {
  const std::map<std::string, std::string> variables = {{"VLLM_PROMPT_SEQ_BUCKET_MAX", "4096"},
                                                        {"VLLM_DECODE_BS_BUCKET_LIMIT", "0.5"}};
  const auto read = [&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
  BucketSettings settings = single_node_buckets(16384, 64, 1);
  ASSERT_TRUE(apply_bucket_environment(read, &settings));
  EXPECT_EQ(settings.prompt_seq.max, 4096);
  EXPECT_EQ(settings.decode_bs.limit, 0.5);
  const Status bad = apply_bucket_environment([](const std::string&) { return "12k"; }, &settings);
  EXPECT_THAT(bad.error().message, HasSubstr("VLLM_PROMPT_BS_BUCKET_MIN=12k: expected a whole number"));
  EXPECT_THAT(bucket_values({4, 1, 2}, BucketRule::kLinear).error().message, HasSubstr("min 4, step 1, max 2"));
  EXPECT_FALSE(bucket_values({1, 1, int64_t{1} << 39}, BucketRule::kPaddingRatio));
}

}  // namespace
}  // namespace hadal
