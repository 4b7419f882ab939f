#include "quant/inc_ranges.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/file.h"
#include "quant/inc_modules.h"
#include "quant/testing/range_samples.h"
#include "support/test_files.h"

namespace hadal {
namespace {

constexpr const char* kRealBase = "inc-ds-r1-0528-g2-tp16/inc_measure_output";

std::vector<IncMeasurement> all_ranks(const RangeSet& set, int64_t world_size) {
  std::vector<IncMeasurement> out;
  for (int64_t rank = 0; rank < world_size; ++rank) {
    const auto file = inc_rank_file(set, rank, world_size);
    EXPECT_TRUE(file.has_value()) << file.error().message;
    out.push_back(file->measurement);
  }
  return out;
}

IncNode& node_of(IncMeasurement& measurement, std::string_view name) {
  return *std::find_if(measurement.nodes.begin(), measurement.nodes.end(),
                       [name](const IncNode& node) { return node.name == name; });
}

TEST(IncModules, NamesParseBack) {
  const auto share = rank_share(small_dims(), 1, 2);
  for (const IncModule& module : inc_modules(small_dims(), *share)) {
    const auto id = parse_inc_module_name(module.name);
    ASSERT_TRUE(id.has_value()) << module.name;
    EXPECT_EQ(id->layer, module.id.layer);
    EXPECT_EQ(id->role, module.id.role);
    EXPECT_EQ(id->local_expert, module.id.local_expert);
  }
  for (const char* other :
       {"", "lm_head", "model.layers.", "model.layers.x.mlp.down_proj", "model.layers.0.mlp",
        "model.layers.00.mlp.down_proj", "model.layers.0.mlp.down_proj.1", "model.layers.0.mlp.experts.moe_op.w13_list",
        "model.layers.99999999999.mlp.down_proj", "model.layers.0.mlp.experts.moe_op.w13_list.01"}) {
    EXPECT_FALSE(parse_inc_module_name(other).has_value()) << other;
  }
}

// The names and order of the published files; latent_cache_v is a module that no longer exists.
TEST(IncModules, AreThePublishedOnes) {
  HADAL_SPEC_DATA_OR_SKIP(path, inc_file_path(kRealBase, 0, 16, "_mod_list.json").string());
  auto expected = parse_inc_mod_list(*read_file(path, 1 << 20));
  ASSERT_TRUE(expected.has_value());
  std::erase_if(*expected, [](const std::string& name) { return name.ends_with("latent_cache_v"); });
  std::vector<std::string> names;
  for (const IncModule& module : inc_modules(r1_dims(), *rank_share(r1_dims(), 0, 16))) names.push_back(module.name);
  EXPECT_EQ(names, *expected);
}

TEST(RankShare, TheLastRankTakesTheRemainder) {
  RangeDims dims = small_dims();
  dims.n_routed_experts = 10;
  const auto first = rank_share(dims, 0, 4), last = rank_share(dims, 3, 4);
  EXPECT_EQ(first->expert_end - first->expert_begin, 2);
  EXPECT_EQ(last->expert_begin, 6);
  EXPECT_EQ(last->expert_end, 10);
  EXPECT_EQ(last->head_begin, 3);
  EXPECT_NE(rank_share(dims, 0, 3).error().message.find("does not divide the model's 4 attention heads"),
            std::string::npos);
  dims.num_attention_heads = 64;
  EXPECT_NE(rank_share(dims, 0, 16).error().message.find("without any of the model's 10 experts"), std::string::npos);
  EXPECT_FALSE(rank_share(dims, 2, 2).has_value());
}

// A real rank's file stands for all 16: gathered and shared out again it comes back, node for node.
TEST(IncRanges, ARealFileSurvivesTheRangeSet) {
  for (const int rank : {0, 5}) {
    HADAL_SPEC_DATA_OR_SKIP(path, inc_file_path(kRealBase, rank, 16, ".npz").string());
    const auto real = read_inc_measurement(path);
    ASSERT_TRUE(real.has_value()) << real.error().message;
    const auto set = ranges_from_inc(r1_dims(), std::vector<IncMeasurement>(16, *real));
    ASSERT_TRUE(set.has_value()) << set.error().message;
    for (int64_t r = 0; r < 16; ++r) {
      const auto again = inc_rank_file(*set, r, 16);
      ASSERT_TRUE(again.has_value()) << again.error().message;
      EXPECT_EQ(again->measurement.nodes, real->nodes) << r;
    }
    // outputs[1 + i] is local expert i, so rank 5's outputs[2] is expert 5 * 16 + 1.
    EXPECT_EQ(set->layers[60].expert_down_in[81], rank == 5 ? 140288 : 42.25f);
  }
}

TEST(IncRanges, EveryWorldSizeRoundTrips) {
  RangeSet set = numbered_ranges(small_dims());
  for (LayerRanges& layer : set.layers) {
    if (!layer.expert_tokens.empty()) layer.moe_out = {{1, {1}}, {2, {2, 3}}, {4, {4, 5, 6, 7}}};
  }
  for (const int64_t world_size : {1, 2, 4}) {
    const std::vector<IncMeasurement> ranks = all_ranks(set, world_size);
    const auto gathered = ranges_from_inc(small_dims(), ranks);
    ASSERT_TRUE(gathered.has_value()) << gathered.error().message;
    EXPECT_EQ(all_ranks(*gathered, world_size), ranks);
    EXPECT_EQ(gathered->provenance.source_world_size, world_size);
    EXPECT_EQ(gathered->layers[1].expert_down_in, set.layers[1].expert_down_in);
    EXPECT_EQ(gathered->layers[2].mlp_in, set.layers[2].mlp_in);
  }
  // At the finest split nothing is merged.
  const auto finest = ranges_from_inc(small_dims(), all_ranks(set, 4));
  EXPECT_EQ(finest->layers[0].o_in, set.layers[0].o_in);
  EXPECT_EQ(finest->layers[0].down_in, set.layers[0].down_in);
}

// Rank r sees the largest of its own heads, leaves and experts.
TEST(IncRanges, ARankSeesWhatItOwns) {
  RangeSet set = numbered_ranges(small_dims());
  set.layers[1].o_in = {1, 4, 3, 2};
  set.layers[0].down_in = {8, 2, 5, 6};
  set.layers[1].expert_down_in = {1, 2, 3, 4, 5, 6, 7, kUnmeasured};
  set.layers[1].moe_out[2] = {10, 20};
  auto rank0 = inc_rank_file(set, 0, 2)->measurement, rank1 = inc_rank_file(set, 1, 2)->measurement;
  EXPECT_EQ(node_of(rank0, "model.layers.1.self_attn.mla_attn.impl.o_proj").inputs[0], 4);
  EXPECT_EQ(node_of(rank1, "model.layers.1.self_attn.mla_attn.impl.o_proj").inputs[0], 3);
  EXPECT_EQ(node_of(rank0, "model.layers.0.mlp.down_proj").inputs[0], 8);
  EXPECT_EQ(node_of(rank1, "model.layers.0.mlp.down_proj").inputs[0], 6);
  EXPECT_EQ(node_of(rank1, "model.layers.1.mlp.experts.moe_op").outputs, (std::vector<float>{20, 5, 6, 7, 0}));
  EXPECT_EQ(node_of(rank1, "model.layers.1.mlp.experts.moe_op.w2_list.3").weight, set.layers[1].w2_weight[7]);
  EXPECT_EQ(node_of(rank1, "model.layers.1.mlp.experts.moe_op.w2_list.3").inputs, std::vector<float>{0});
}

TEST(IncRanges, LeavesThatAWorldSizeCutsAreUpperBounds) {
  RangeDims dims = small_dims();
  dims.num_attention_heads = 8;
  RangeSet set = numbered_ranges(dims);
  set.layers[0].down_in = {1, 2, 3, 4};
  for (LayerRanges& layer : set.layers) {
    if (!layer.expert_tokens.empty()) layer.moe_out[8] = std::vector<float>(8, 1);
  }
  // 8 ranks, 4 leaves: ranks 2 and 3 share leaf 1.
  for (const int64_t rank : {2, 3}) {
    auto file = inc_rank_file(set, rank, 8);
    ASSERT_TRUE(file.has_value()) << file.error().message;
    EXPECT_EQ(node_of(file->measurement, "model.layers.0.mlp.down_proj").inputs[0], 2);
  }
}

TEST(IncRanges, UnmeasuredModulesAreLeftOutAndStayUnmeasured) {
  RangeSet set = numbered_ranges(small_dims());
  set.layers[2].q_b_in = kUnmeasured;
  auto ranks = all_ranks(set, 2);
  const auto gathered = ranges_from_inc(small_dims(), ranks);
  ASSERT_TRUE(gathered.has_value()) << gathered.error().message;
  EXPECT_EQ(gathered->layers[2].q_b_in, kUnmeasured);
  EXPECT_EQ(inc_rank_file(set, 0, 4).error().message,
            "model.layers.1.mlp.experts.moe_op: outputs[0] was not measured for world size 4; calibrate with --wd 4");
}

TEST(IncRanges, PlainQProjAndNoSharedExpert) {
  RangeDims dims = small_dims();
  dims.q_lora_rank = 0;
  dims.n_shared_experts = 0;
  dims.shared_leaves = 0;
  const RangeSet set = numbered_ranges(dims);
  const auto ranks = all_ranks(set, 2);
  for (const IncNode& node : ranks[0].nodes) {
    EXPECT_EQ(node.name.find("q_a_proj"), std::string::npos);
    EXPECT_EQ(node.name.find("shared_experts"), std::string::npos);
  }
  EXPECT_TRUE(ranges_from_inc(dims, ranks).has_value());
}

// What is changed in a good set of two ranks, and what the refusal must name.
TEST(IncRanges, ContradictionsAreRefusedByName) {
  const std::vector<IncMeasurement> good = all_ranks(numbered_ranges(small_dims()), 2);
  const std::string impl = "model.layers.1.self_attn.mla_attn.impl.", moe = "model.layers.1.mlp.experts.moe_op";
  const auto refused = [&](auto change, RangeDims dims = small_dims()) {
    std::vector<IncMeasurement> ranks = good;
    change(ranks);
    const auto set = ranges_from_inc(dims, ranks);
    return set ? std::string("accepted") : set.error().message;
  };
  const auto has = [](const std::string& message, const std::string& expected) {
    EXPECT_NE(message.find(expected), std::string::npos) << message << "\nnot " << expected;
  };
  EXPECT_EQ(refused([](auto&) {}), "accepted");
  EXPECT_EQ(refused([](auto& r) { r[0].nodes.push_back({"lm_head", {1}, {}, 1.0f}); }), "accepted");
  has(refused([&](auto& r) { node_of(r[1], impl + "latent_cache_k").inputs[0] *= 2; }),
      impl + "latent_cache_k of rank 1, inputs[0] is");
  has(refused([&](auto& r) { node_of(r[0], impl + "matmul_qk").inputs[1] *= 2; }), "must agree");
  has(refused([&](auto& r) { node_of(r[1], "model.layers.0.self_attn.q_a_proj").inputs[0] = 1; }),
      "model.layers.0.self_attn.q_a_proj of rank 1, inputs[0] is 1");
  has(refused([&](auto& r) { node_of(r[1], impl + "batch2block_matmul").inputs[0] = 2; }), "is 2, expected 1");
  has(refused([&](auto& r) { node_of(r[1], moe + ".w2_list.0").inputs[0] = 2; }), "is 2, expected 0");
  has(refused([&](auto& r) { node_of(r[1], impl + "o_proj").inputs.push_back(1); }),
      impl + "o_proj of rank 1 has 2 inputs, expected 1");
  has(refused([&](auto& r) { node_of(r[1], impl + "o_proj").weight.reset(); }), "has no weight");
  has(refused([&](auto& r) { node_of(r[1], impl + "matmul_av").weight = 1; }), "has a weight");
  has(refused([&](auto& r) { node_of(r[0], moe).outputs.pop_back(); }),
      moe + " of rank 0 has 4 outputs, expected 5: 1 + the rank's share of 8 experts at world size 2");
  has(refused([](auto& r) { r.pop_back(); }), "at world size 1");  // half of the files: experts do not add up
  has(refused([](auto& r) { r[0].nodes.erase(r[0].nodes.begin()); }), "is measured at rank 1 but not at rank 0");
  has(refused([&](auto& r) {
        for (auto& rank : r) node_of(rank, impl + "o_proj").name = impl + "o_projj";
      }),
      "o_projj\" of rank 0 is no module of this model, nearest is " + impl + "o_proj");
  has(refused([](auto& r) { r[1].nodes.erase(r[1].nodes.begin()); }), "is measured at rank 0 but not at rank 1");
  RangeDims fewer_layers = small_dims();
  fewer_layers.num_hidden_layers = 2;
  has(refused([](auto&) {}, fewer_layers),
      "model.layers.2.self_attn.q_a_proj\" of rank 0 is no module of this model: "
      "the model has 2 layers");
  RangeDims more_experts = small_dims();
  more_experts.n_routed_experts = 16;
  has(refused([](auto&) {}, more_experts), "share of 16 experts");
  EXPECT_FALSE(ranges_from_inc(small_dims(), {}).has_value());
}

TEST(IncRanges, LoadsEitherKind) {
  const TempDir dir;
  const RangeSet set = numbered_ranges(small_dims());
  ASSERT_TRUE(write_range_set(dir.path() / "ranges.json", set).has_value());
  const auto base = dir.path() / "inc_measure_output";
  EXPECT_EQ(load_ranges(small_dims(), base).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(write_inc_files(base, 2, set).has_value());

  const auto ours = load_ranges(small_dims(), dir.path() / "ranges.json"), inc = load_ranges(small_dims(), base);
  ASSERT_TRUE(ours && inc);
  EXPECT_EQ(ours->layers, set.layers);
  EXPECT_EQ(inc->layers[1].expert_down_in, set.layers[1].expert_down_in);

  EXPECT_NE(load_ranges(small_dims(), base, 4).error().message.find("no measurement files of world size 4, only of 2"),
            std::string::npos);
  RangeDims other = small_dims();
  other.hidden_size = 64;
  EXPECT_NE(load_ranges(other, dir.path() / "ranges.json").error().message.find("hidden_size is 32, expected 64"),
            std::string::npos);
  std::filesystem::remove(base.string() + "_hooks_maxabs_1_2.npz");
  EXPECT_TRUE(load_ranges(small_dims(), base).has_value());  // the .json is still there
  std::filesystem::remove(base.string() + "_hooks_maxabs_1_2.json");
  EXPECT_NE(load_ranges(small_dims(), base).error().message.find("inc_measure_output_hooks_maxabs_1_2.npz"),
            std::string::npos);
}

}  // namespace
}  // namespace hadal
