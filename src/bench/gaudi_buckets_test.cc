#include "bench/gaudi_buckets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "bench/gaudi_buckets_text.h"

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

// A cache with fewer blocks than sequences still ends each row whose size the uncapped count allows.
TEST(GaudiBuckets, RowsEndAtTheCachesBlocksWhateverTheBatchSize) {
  BucketSettings settings{.prompt_bs = {1, 1, 1},
                          .prompt_seq = {128, 128, 128},
                          .decode_bs = {1, 4, 8},
                          .decode_block = {2, 2, 8},
                          .max_num_batched_tokens = 128,
                          .num_blocks = 3};
  settings.rule = BucketRule::kLinear;
  const BucketPlan plan = plan_buckets(settings).value();
  std::vector<std::pair<int64_t, int64_t>> decode;
  for (const Bucket& bucket : plan.decode) decode.emplace_back(bucket.batch_size, bucket.length);
  EXPECT_EQ(decode, (std::vector<std::pair<int64_t, int64_t>>{{1, 2}, {1, 3}, {2, 2}, {2, 3}, {4, 3}, {8, 3}}));
}

// Prompts grow in steps of 128 whatever the cache's blocks are, and the batch follows from the shortest as given.
TEST(GaudiBuckets, SetBucketingTakesTheInputsAsTheyAre) {
  const BucketSettings settings = set_bucketing({.max_num_batched_tokens = 16384,
                                                 .max_num_seqs = 100,
                                                 .input_min = 1000,
                                                 .input_max = 2000,
                                                 .output_max = 48,
                                                 .block_size = 256});
  const auto values = [](const BucketRange& range) { return std::tuple(range.min, range.step, range.max); };
  EXPECT_EQ(values(settings.prompt_bs), std::tuple(1, 1, 16));
  EXPECT_EQ(values(settings.prompt_seq), std::tuple(1024, 128, 2176));
  EXPECT_EQ(values(settings.decode_bs), std::tuple(1, 16, 112));
  EXPECT_EQ(values(settings.decode_block), std::tuple(4, 112, 9 * 112));
  EXPECT_EQ(set_bucketing({.max_num_batched_tokens = 8192, .input_min = 100}).prompt_bs.max, 81);
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
}

TEST(GaudiBuckets, OnePaddingRatioForAllLimits) {
  BucketSettings settings = single_node_buckets(16384, 64, 1);
  const auto read = [](const std::string& name) -> std::optional<std::string> {
    if (name == "BUCKET_PADDING_RATIO") return "0.1";
    return name == "VLLM_DECODE_BS_BUCKET_LIMIT" ? std::optional<std::string>("1") : std::nullopt;
  };
  ASSERT_TRUE(apply_bucket_environment(read, &settings));
  EXPECT_EQ(settings.prompt_seq.limit, 0.1);
  EXPECT_EQ(settings.decode_block.limit, 0.1);
  EXPECT_EQ(settings.decode_bs.limit, 1);
  for (const char* value : {"2", "-1", "nan", "much"}) {
    const auto all = [&](const std::string& name) {
      return name == "BUCKET_PADDING_RATIO" ? std::optional<std::string>(value) : std::nullopt;
    };
    EXPECT_THAT(apply_bucket_environment(all, &settings).error().message,
                HasSubstr(fmt::format("BUCKET_PADDING_RATIO={}: expected", value)));
  }
}

TEST(GaudiBuckets, RefusesWhatCannotBeCountedByName) {
  const std::pair<BucketRange, const char*> ranges[] = {{{1, 0, 8}, "step 0"},
                                                        {{0, 1, 8}, "min 0"},
                                                        {{-4, 1, 8}, "min -4"},
                                                        {{1, -1, 8}, "step -1"},
                                                        {{1, 1, -8}, "max -8"},
                                                        {{1, 1, int64_t{1} << 39}, "max 549755813888"},
                                                        {{1, INT64_MAX, 8}, "step 9223372036854775807"},
                                                        {{1, 1, int64_t{1} << 30}, "more than 1048576 values"},
                                                        {{1, 1, 8, -0.5}, "limit -0.5"},
                                                        {{1, 1, 8, std::nan("")}, "limit nan"}};
  for (const auto& [range, message] : ranges) {
    BucketSettings settings = single_node_buckets(16384, 64, 1);
    settings.decode_bs = range;
    for (const BucketRule rule : {BucketRule::kLinear, BucketRule::kPaddingRatio}) {
      settings.rule = rule;
      const auto plan = plan_buckets(settings);
      ASSERT_FALSE(plan) << message;
      EXPECT_THAT(plan.error().message, testing::AllOf(HasSubstr("VLLM_DECODE_BS_BUCKET_*"), HasSubstr(message)));
    }
  }
  BucketSettings many = single_node_buckets(16384, 64, 1);
  many.prompt_bs = many.prompt_seq = {1, 1, 4096};
  many.rule = BucketRule::kLinear;
  EXPECT_THAT(plan_buckets(many).error().message, HasSubstr("4096 batch sizes times 4096 lengths"));
  // The largest arguments overflow nothing; what they ask for is refused.
  EXPECT_FALSE(plan_buckets(single_node_buckets(kMostBucketTokens, kMostBucketTokens, kMostBucketTokens)));
  EXPECT_FALSE(plan_buckets(set_bucketing(
      {kMostBucketTokens, kMostBucketTokens, kMostBucketTokens, kMostBucketTokens, kMostBucketTokens, 1})));
}

TEST(GaudiBuckets, EstimatesInProportionToTheShapes) {
  BucketPlan plan;
  plan.decode.resize(252);
  EXPECT_NEAR(estimate_warmup(plan).first_start_s, 3600, 1e-6);
  EXPECT_NEAR(estimate_warmup(plan).cached_start_s, 32.75, 1e-6);
}

TEST(GaudiBuckets, PrintsAsThePeer) {
  BucketSettings settings{.prompt_bs = {1, 1, 2},
                          .prompt_seq = {128, 128, 256},
                          .decode_bs = {1, 2, 2},
                          .decode_block = {2, 2, 4},
                          .max_num_batched_tokens = 256};
  const BucketPlan plan = plan_buckets(settings).value();
  EXPECT_EQ(bucket_lines(settings, plan),
            "Prompt bucket config (min, step, max_warmup) bs:[1, 1, 2], seq:[128, 128, 256]\n"
            "Decode bucket config (min, step, max_warmup) bs:[1, 2, 2], block:[2, 2, 4]\n"
            "Generated 3 prompt buckets [bs, seq]: [(1, 128), (1, 256), (2, 128)]\n"
            "Omitted 1 prompt buckets due to exceeded token budget (max_num_batched_tokens=256)\n"
            "Generated 4 decode buckets [bs, total_blocks]: [(1, 2), (1, 4), (2, 2), (2, 4)]\n");
  const Json json = bucket_plan_to_json(settings, plan);
  EXPECT_EQ(json["prompt"].dump(), "[[1,128],[2,128],[1,256]]");
  EXPECT_EQ(json["num_decode"], 4);
  EXPECT_EQ(json["buckets_needed_here"], 0);
}

}  // namespace
}  // namespace hadal
