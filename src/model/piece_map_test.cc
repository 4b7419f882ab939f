#include "model/piece_map.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

// A step of a model with 2 dense and 3 MoE layers: 300 expanded tokens of one prompt from position 2,000 on and 7 of
// another, 5 absorbed tokens.
class PieceMapTest : public testing::Test {
 protected:
  PieceMapTest() {
    config_.hidden_size = 64;
    config_.num_hidden_layers = 5;
    config_.first_k_dense_replace = 2;
    config_.num_attention_heads = 4;
    config_.q_lora_rank = 32;
    config_.kv_lora_rank = 16;
    config_.qk_nope_head_dim = config_.v_head_dim = 8;
    config_.qk_rope_head_dim = 4;
    config_.intermediate_size = 128;
    config_.moe_intermediate_size = 32;
    config_.router.n_routed_experts = 8;
    config_.router.num_experts_per_tok = 2;
    config_.vocab_size = 100;
    plan_.expanded = {{.num_tokens = 300, .first_position = 2000}, {.row = 300, .num_tokens = 7}};
    plan_.positions.resize(312, 10);
    plan_.absorbed_rows = {307, 308, 309, 310, 311};
  }

  PieceMap map(const ExpandedUnits& units, int64_t num_logits = 1) {
    const StepContext step = {.config = config_,
                              .kernels = kernels_for(Isa::kPortable),
                              .rope = rope_,
                              .runner = runner_,
                              .ws = ws_,
                              .plan = plan_,
                              .numerics = numerics_,
                              .observer = observer_,
                              .num_tokens = 312};
    return PieceMap(step, units, num_logits);
  }

  ModelConfig config_;
  AttentionPlan plan_;
  RopeParameters rope_;
  ThreadPool pool_{1};
  StepRunner runner_{pool_, NodeShares{}};
  Workspace ws_;
  NumericsPlan numerics_;
  ForwardObserver observer_;
};

TEST_F(PieceMapTest, RangesCoverEveryUnitOnceHoweverTheyAreCut) {
  const ExpandedUnits units = {.num_waves = 2, .num_segments = 3};
  const PieceMap pieces = map(units);
  ASSERT_EQ(pieces.num_pieces(), 5 * (6 + 5 + 4) + 1);
  for (const int64_t count : {1, 2, 4, 7, 1000}) {
    std::vector<std::tuple<int64_t, LayerPart, int64_t>> seen;
    for (int64_t begin = 0; begin < pieces.num_pieces();) {
      const PieceRange range = pieces.range(begin, std::min(begin + count, pieces.num_pieces()));
      ASSERT_GT(range.num_pieces(), 0);
      for (int64_t unit = range.unit_begin; unit < range.unit_end; ++unit) {
        seen.emplace_back(range.layer, range.part, unit);
      }
      begin += range.num_pieces();
    }
    ASSERT_EQ(static_cast<int64_t>(seen.size()), pieces.num_pieces());
    std::vector<std::tuple<int64_t, LayerPart, int64_t>> wanted;
    for (int64_t layer = 0; layer < 5; ++layer) {
      wanted.emplace_back(layer, LayerPart::kAttentionInput, 0);
      for (int64_t unit = 0; unit < 6; ++unit) wanted.emplace_back(layer, LayerPart::kExpanded, unit);
      for (int64_t unit = 0; unit < 5; ++unit) wanted.emplace_back(layer, LayerPart::kAbsorbed, unit);
      for (const LayerPart part : {LayerPart::kAttentionOutput, LayerPart::kMlpInput, LayerPart::kMlpOutput}) {
        wanted.emplace_back(layer, part, 0);
      }
    }
    wanted.emplace_back(5, LayerPart::kHead, 0);
    EXPECT_EQ(seen, wanted) << count;
  }
}

TEST_F(PieceMapTest, EveryPieceHasWork) {
  for (const ExpandedUnits units : {ExpandedUnits{2, 3}, ExpandedUnits{2, 1}}) {
    const PieceMap pieces = map(units);
    for (int64_t i = 0; i < pieces.num_pieces(); ++i) EXPECT_GT(pieces.piece(i).work, 0) << i;
  }
  EXPECT_EQ(map({2, 3}).piece(75).kind, PieceKind::kHead);
  EXPECT_EQ(map({2, 3}, 0).piece(75).kind, PieceKind::kProjections) << "without logits it is a norm";
}

// A unit of all segments has the work of its segments; a segment that few queries see has less.
TEST_F(PieceMapTest, SegmentsAddUp) {
  plan_.expanded.pop_back();
  const PieceMap by_segment = map({2, 3}), whole = map({2, 1});
  const double first = by_segment.piece(1).work, second = by_segment.piece(2).work, last = by_segment.piece(3).work;
  EXPECT_EQ(whole.piece(1).work, first + second + last);
  EXPECT_EQ(first, second);
  // 252 of 1,024 keys, met by the 252 queries from there on instead of all 300.
  EXPECT_EQ(first, 1024.0 * (16 * 16 + 300 * 20));
  EXPECT_EQ(last, 252.0 * (16 * 16 + 252 * 20));
}

TEST_F(PieceMapTest, WithoutExpandedTokens) {
  plan_.expanded.clear();
  EXPECT_EQ(map({}).num_pieces(), 5 * (5 + 4) + 1);
}

}  // namespace
}  // namespace hadal
