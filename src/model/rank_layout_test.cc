#include "model/rank_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hadal {
namespace {

using ::testing::HasSubstr;

// The leaves of DeepSeek-V3, without its size.
ModelConfig large_config() {
  ModelConfig config;
  config.num_hidden_layers = 2;
  config.first_k_dense_replace = 1;
  config.num_attention_heads = 128;
  config.intermediate_size = 18432;
  config.moe_intermediate_size = 2048;
  config.n_shared_experts = 1;
  config.router.n_routed_experts = 256;
  config.vocab_size = 129280;
  return config;
}

std::string refusal(const ModelConfig& config, const RankSlice& slice) {
  const Status status = check_rank_slice(config, slice);
  if (status) return "accepted";
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  return status.error().message;
}

TEST(RankSlice, DegreesThatLeavesAndHeadsAllow) {
  ModelConfig config = large_config();
  for (const bool expert_parallel : {false, true}) {
    for (const int world_size : {1, 2, 4, 8, 16}) {
      EXPECT_EQ(refusal(config, {.rank = world_size - 1, .world_size = world_size, .expert_parallel = expert_parallel}),
                "accepted");
    }
  }
  EXPECT_EQ(refusal(config, {.world_size = 3}),
            "--tensor-parallel-size 3: this model can be cut into 1, 2, 4, 8 or 16 parts");
  for (const int world_size : {-1, 0, 6, 32}) {
    EXPECT_THAT(refusal(config, {.world_size = world_size}), HasSubstr("1, 2, 4, 8 or 16 parts")) << world_size;
  }
  config.moe_intermediate_size = 1408;  // 11 x 128
  EXPECT_EQ(refusal(config, {.world_size = 16}), "accepted") << "88 columns each";
  config.moe_intermediate_size = 1404;
  EXPECT_THAT(refusal(config, {.world_size = 8}), HasSubstr("1, 2 or 4 parts"));
  config.num_attention_heads = 6;
  EXPECT_THAT(refusal(config, {.world_size = 4}), HasSubstr("1 or 2 parts"));
  config.num_attention_heads = 3;
  EXPECT_THAT(refusal(config, {.world_size = 2}), HasSubstr("into 1 part only"));
}

TEST(RankSlice, ExpertsMayAllowOtherDegreesThanWidths) {
  ModelConfig config = large_config();
  config.router.n_routed_experts = 8;
  EXPECT_EQ(refusal(config, {.world_size = 16}), "accepted");
  EXPECT_EQ(refusal(config, {.world_size = 16, .expert_parallel = true}),
            "--tensor-parallel-size 16 with --enable-expert-parallel: this model can be cut into 1, 2, 4 or 8 parts");
}

TEST(RankSlice, RankIsOneOfThem) {
  EXPECT_THAT(refusal(large_config(), {.rank = 2, .world_size = 2}), HasSubstr("rank 2 of 2: expected 0 to 1"));
  EXPECT_THAT(refusal(large_config(), {.rank = -1, .world_size = 2}), HasSubstr("rank -1"));
}

TEST(RankLayout, RanksOwnWholeSubtrees) {
  const RankLayout cut = rank_layout(large_config(), {.rank = 3, .world_size = 8});
  EXPECT_EQ(cut.attention_leaves, 2);
  EXPECT_EQ(cut.dense_leaves, 2);
  EXPECT_EQ(cut.moe_leaves, 2);
  EXPECT_EQ(cut.experts.size(), 256);
  EXPECT_EQ(cut.leaf_of(200), -1);
  EXPECT_EQ(cut.shared_width, 256);
  const RankLayout whole = rank_layout(large_config(), {.rank = 3, .world_size = 8, .expert_parallel = true});
  EXPECT_EQ(whole.experts.begin, 96);
  EXPECT_EQ(whole.experts.end, 128);
  EXPECT_EQ(whole.experts_per_leaf, 16);
  EXPECT_EQ(whole.leaf_of(96), 0);
  EXPECT_EQ(whole.leaf_of(111), 0);
  EXPECT_EQ(whole.leaf_of(112), 1);
  EXPECT_EQ(whole.shared_width, 256);
  const ModelConfig part = rank_config(large_config(), cut.slice);
  EXPECT_EQ(part.num_attention_heads, 16);
  EXPECT_EQ(part.intermediate_size, 2304);
  EXPECT_EQ(part.moe_intermediate_size, 256);
  EXPECT_EQ(rank_config(large_config(), whole.slice).moe_intermediate_size, 2048);
}

// Every token belongs to one rank, ranks in order, whole panels except at the end.
TEST(RankLayout, VocabularyIsCutAtPanels) {
  ModelConfig config = large_config();
  for (const int64_t vocab : {1, 31, 32, 33, 520, 129280, 163840}) {
    config.vocab_size = vocab;
    for (const int world_size : {1, 2, 4, 8, 16}) {
      int64_t next = 0;
      for (int rank = 0; rank < world_size; ++rank) {
        const IndexRange share = vocab_share(config, world_size, rank);
        EXPECT_EQ(share.begin, next);
        EXPECT_TRUE(share.begin % 32 == 0 || share.size() == 0);
        EXPECT_LE(share.size(), vocab_share(config, world_size, 0).size());
        next = share.end;
      }
      EXPECT_EQ(next, vocab);
    }
  }
}

}  // namespace
}  // namespace hadal
