#include "quant/inc_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/file.h"
#include "quant/inc_ranges.h"
#include "quant/inc_scale_file.h"
#include "quant/testing/range_samples.h"
#include "support/test_files.h"

namespace hadal {
namespace {

constexpr const char* kPerChannel = R"({"scale_method": "ACT_MAXABS_HW_WEIGHTS_PCS_MAXABS_POW2",
    "scale_format": "const", "blocklist": {"names": ["lm_head", "mlp\\.gate\\b"]}})";
constexpr const char* kBf16Kv = R"({"scale_method": "ACT_MAXABS_HW_WEIGHTS_PCS_MAXABS_POW2",
    "blocklist": {"names": ["lm_head", "mlp\\.gate\\b", "latent_cache_k", "kv_b_proj", "matmul_qk", "matmul_av",
                            "batch2block_matmul", "block2batch_matmul"]}})";

IncConfig config_of(const std::string& text) {
  const auto config = parse_inc_config(text);
  EXPECT_TRUE(config.has_value()) << config.error().message;
  return *config;
}

struct Built {
  NumericsPlan plan;
  IncPlanReport report;
  std::string error;
};
Built build(const RangeSet& ranges, const std::string& config, const IncPlanOptions& options) {
  Built out;
  auto plan = make_inc_plan(ranges, config_of(config), options, out.report);
  if (plan) {
    out.plan = std::move(*plan);
  } else {
    out.error = plan.error().message;
  }
  return out;
}

StaticScale naive(float amax) { return scale_from_amax(amax, {}); }

TEST(IncPlan, EveryModuleGetsItsScale) {
  const RangeSet ranges = numbered_ranges(small_dims());
  const Built built = build(ranges, kPerChannel, {.fp8_cache = true, .switches = {.force_naive_scaling = true}});
  ASSERT_EQ(built.error, "");
  const NumericsPlan& plan = built.plan;
  EXPECT_EQ(plan.profile, NumericsProfile::kGaudi2);
  EXPECT_EQ(plan.mode, GaudiMode::kInc);
  EXPECT_EQ(plan.range, FpRange::kGaudi2);
  EXPECT_TRUE(plan.bf16_results);
  EXPECT_FALSE(plan.weight_scale_per_tensor);
  EXPECT_FALSE(plan.fixed_weight_scale.has_value());
  EXPECT_EQ(plan.weight_rule.backoff, 1);
  ASSERT_EQ(plan.layers.size(), 3u);
  for (size_t l = 0; l < 3; ++l) {
    const LayerRanges& seen = ranges.layers[l];
    const LayerQuant& layer = plan.layers[l];
    const auto largest = [](const std::vector<float>& values) {
      return *std::max_element(values.begin(), values.end());
    };
    for (const auto& [module, amax] : {std::pair{&layer.q_a, seen.attention_in},
                                       {&layer.kv_a, seen.attention_in},
                                       {&layer.q_b, seen.q_b_in},
                                       {&layer.o, largest(seen.o_in)},
                                       {&layer.gate_up, seen.mlp_in},
                                       {&layer.down, largest(seen.down_in)},
                                       {&layer.attention.kv_b, seen.kv_b_in}}) {
      EXPECT_EQ(module->weight, WeightFormat::kRowF8);
      EXPECT_EQ(module->input.kind, InputQuantKind::kStatic);
      EXPECT_EQ(module->input.scale, naive(amax));
    }
    const AttentionQuant& attention = layer.attention;
    EXPECT_EQ(attention.latent_cache, naive(seen.latent_cache));
    EXPECT_EQ(attention.matmul_qk, (std::array{naive(largest(seen.absorbed_q)), naive(seen.latent_cache)}));
    EXPECT_EQ(attention.matmul_av, (std::array{naive(1), naive(seen.latent_value)}));
    EXPECT_EQ(attention.batch2block, (std::array{naive(1), naive(largest(seen.batch2block))}));
    EXPECT_EQ(attention.block2batch, (std::array{naive(1), naive(largest(seen.block2batch))}));
    EXPECT_EQ(attention.sdpa, (std::array{naive(largest(seen.sdpa_q)), naive(largest(seen.sdpa_k)),
                                          naive(largest(seen.sdpa_v)), naive(1), naive(largest(seen.sdpa_out))}));
    if (l == 0) continue;
    EXPECT_EQ(layer.experts.input.scale, naive(seen.mlp_in));
    EXPECT_EQ(layer.expert_down, InputQuantKind::kStatic);
    ASSERT_EQ(layer.expert_down_scales.size(), 8u);
    for (size_t e = 0; e < 8; ++e) EXPECT_EQ(layer.expert_down_scales[e], naive(seen.expert_down_in[e]));
  }
  // 11 of attention a layer, 2 of an MLP or shared expert, the MoE op and its 16 linears.
  EXPECT_EQ(built.report.num_modules, 3 * 13 + 2 * 17);
  EXPECT_EQ(built.report.num_quantised, built.report.num_modules);
  EXPECT_EQ(built.report.num_blocked, 0);
  EXPECT_TRUE(built.report.substitutes.empty());
}

TEST(IncPlan, HwAlignedScalesAndPerTensorWeights) {
  RangeSet ranges = numbered_ranges(small_dims());
  ranges.layers[0].attention_in = 61;
  const Built built = build(ranges, R"({"scale_method": "maxabs_hw"})", {.fp8_cache = true});
  ASSERT_EQ(built.error, "");
  EXPECT_EQ(built.plan.layers[0].q_a.input.scale, (StaticScale{16, 1.0f / 16}));
  EXPECT_TRUE(built.plan.weight_scale_per_tensor);
  EXPECT_EQ(built.plan.weight_rule.rounding, ScaleRounding::kHwAligned);
  EXPECT_EQ(built.plan.weight_rule.backoff, 0.5f);
}

// The shipped BF16 cache config: linears and prefill attention in FP8, the cache and decode's matmuls not.
TEST(IncPlan, BlockedModulesStayBf16) {
  const RangeSet ranges = numbered_ranges(small_dims());
  const Built built = build(ranges, kBf16Kv, {});
  ASSERT_EQ(built.error, "");
  for (const LayerQuant& layer : built.plan.layers) {
    EXPECT_EQ(layer.attention.kv_b.weight, WeightFormat::kBf16);
    EXPECT_EQ(layer.attention.kv_b.input.kind, InputQuantKind::kNone);
    EXPECT_FALSE(layer.attention.latent_cache || layer.attention.matmul_qk || layer.attention.matmul_av ||
                 layer.attention.batch2block || layer.attention.block2batch);
    EXPECT_TRUE(layer.attention.sdpa.has_value());
    EXPECT_EQ(layer.q_b.weight, WeightFormat::kRowF8);
  }
  EXPECT_EQ(built.report.num_blocked, 3 * 6);
  EXPECT_NE(build(ranges, kBf16Kv, {.fp8_cache = true})
                .error.find("does not quantise model.layers.0.self_attn.mla_attn"
                            ".impl.latent_cache_k; use --kv-cache-dtype auto"),
            std::string::npos);
  // A BF16 cache under a config that would quantise it: the other modules are as configured.
  const Built automatic = build(ranges, kPerChannel, {});
  ASSERT_EQ(automatic.error, "");
  EXPECT_FALSE(automatic.plan.layers[0].attention.latent_cache.has_value());
  ASSERT_FALSE(automatic.report.notes.empty());
  EXPECT_EQ(automatic.report.notes.back(), "The KV cache stays BF16 (--kv-cache-dtype auto)");
  EXPECT_TRUE(automatic.plan.layers[0].attention.matmul_qk.has_value());
}

TEST(IncPlan, BlockedExpertsStayBf16TogetherOnly) {
  const RangeSet ranges = numbered_ranges(small_dims());
  const Built blocked = build(ranges, R"({"blocklist": {"names": ["moe_op"]}})", {});
  ASSERT_EQ(blocked.error, "");
  EXPECT_EQ(blocked.plan.layers[1].experts.weight, WeightFormat::kBf16);
  EXPECT_EQ(blocked.plan.layers[1].expert_down, InputQuantKind::kNone);
  EXPECT_TRUE(blocked.plan.layers[1].expert_down_scales.empty());
  EXPECT_EQ(blocked.report.num_blocked, 2 * 17);
  EXPECT_NE(build(ranges, R"({"blocklist": {"types": ["MoeFP8Matmul"]}})", {})
                .error.find(
                    "model.layers.1.mlp.experts.moe_op.w13_list.0 is blocked but model.layers.1.mlp.experts.moe_op is "
                    "quantised"),
            std::string::npos);
}

TEST(IncPlan, ExpertsWithoutARangeTakeTheMedianAndAreReported) {
  RangeSet ranges = numbered_ranges(small_dims());
  ranges.layers[1].expert_down_in = {3, 0, 1, kUnmeasured, 5, 4, 2, 9};  // measured: 1 2 3 4 5 9, lower median 3
  const Built built = build(ranges, kPerChannel, {.switches = {.force_naive_scaling = true}});
  ASSERT_EQ(built.error, "");
  EXPECT_EQ(built.plan.layers[1].expert_down_scales[1], naive(3));
  EXPECT_EQ(built.plan.layers[1].expert_down_scales[3], naive(3));
  EXPECT_EQ(built.plan.layers[1].expert_down_scales[7], naive(9));
  ASSERT_EQ(built.report.substitutes.size(), 2u);
  const auto lines = describe_substitutes(built.report, 10);
  EXPECT_EQ(lines[0],
            fmt::format("expert 1 of layer 1: no token came by, scale {} (median of its layer)", naive(3).scale));
  EXPECT_NE(lines[1].find("expert 3 of layer 1: not measured"), std::string::npos);
  EXPECT_EQ(describe_substitutes(built.report, 1)[1], "and 1 more experts");

  ranges.layers[2].expert_down_in.assign(8, 0);
  EXPECT_EQ(build(ranges, kPerChannel, {}).error,
            "model.layers.2.mlp.experts.moe_op: none of its 8 experts was measured: calibrate again");
}

TEST(IncPlan, MissingAndZeroRangesAreRefusedByName) {
  struct Case {
    float LayerRanges::*member;
    const char* module;
  };
  for (const auto& [member, module] :
       {Case{&LayerRanges::attention_in, "model.layers.2.self_attn.q_a_proj"},
        Case{&LayerRanges::q_b_in, "model.layers.2.self_attn.mla_attn.impl.q_proj"},
        Case{&LayerRanges::kv_b_in, "model.layers.2.self_attn.mla_attn.impl.kv_b_proj"},
        Case{&LayerRanges::latent_cache, "model.layers.2.self_attn.mla_attn.impl.matmul_qk"},
        Case{&LayerRanges::softmax, "model.layers.2.self_attn.mla_attn.impl.matmul_av"},
        Case{&LayerRanges::mlp_in, "model.layers.2.mlp.experts.moe_op"}}) {
    RangeSet ranges = numbered_ranges(small_dims());
    ranges.layers[2].*member = kUnmeasured;
    const std::string missing = build(ranges, kPerChannel, {}).error;
    EXPECT_EQ(missing.find(std::string(module) + " is to be quantised but was not measured"), 0u) << missing;
    ranges.layers[2].*member = 0;
    const std::string zero = build(ranges, kPerChannel, {}).error;
    EXPECT_EQ(zero.find(std::string(module) + ": the largest magnitude measured is 0"), 0u) << zero;
  }
}

TEST(IncPlan, ModulesWithoutMeasuresMayBeLeftInBf16) {
  RangeSet ranges = numbered_ranges(small_dims());
  ranges.layers[1].q_b_in = ranges.layers[1].mlp_in = kUnmeasured;
  const Built built = build(ranges, R"({"ignore_modules_wo_measures": true})", {});
  ASSERT_EQ(built.error, "");
  EXPECT_EQ(built.plan.layers[1].q_b.weight, WeightFormat::kBf16);
  EXPECT_EQ(built.plan.layers[1].experts.weight, WeightFormat::kBf16);
  EXPECT_EQ(
      built.report.without_measures,
      (std::vector<std::string>{"model.layers.1.self_attn.mla_attn.impl.q_proj", "model.layers.1.mlp.experts.moe_op",
                                "model.layers.1.mlp.shared_experts.gate_up_proj"}));
}

TEST(IncPlan, UnitScaleNeedsNoMeasurement) {
  const Built built = build(make_range_set(small_dims()), R"({"scale_method": "unit_scale"})",
                            {.profile = NumericsProfile::kGaudi3, .fp8_cache = true});
  ASSERT_EQ(built.error, "");
  EXPECT_EQ(built.plan.range, FpRange::kGaudi3);
  EXPECT_EQ(built.plan.fixed_weight_scale, StaticScale{});
  EXPECT_EQ(built.plan.layers[1].expert_down_scales, std::vector<StaticScale>(8));
  EXPECT_EQ(built.plan.layers[1].attention.sdpa->at(3), StaticScale{});
}

TEST(IncPlan, UnsupportedSettingsAreNamed) {
  const RangeSet ranges = numbered_ranges(small_dims());
  for (const auto& [config, expected] : std::vector<std::pair<const char*, const char*>>{
           {R"({"mode": "MEASURE"})", "mode is MEASURE, serving needs QUANTIZE"},
           {R"({"fp8_config": "E5M2"})", "fp8_config E5M2"},
           {R"({"hp_dtype": "FP16"})", "hp_dtype"},
           {R"({"observer": "maxabs_per_channel"})", "observer"},
           {R"({"fake_quant": true})", "fake_quant"},
           {R"({"use_qdq": true})", "use_qdq"},
           {R"({"scale_method": "SMOOTHQUANT_OPT"})", "SMOOTHQUANT_OPT"},
           {R"({"blocklist": {"names": ["("]}})", "blocklist.names"}}) {
    EXPECT_NE(build(ranges, config, {}).error.find(expected), std::string::npos) << expected;
  }
  RangeSet damaged = ranges;
  damaged.layers[0].o_in.pop_back();
  EXPECT_NE(build(damaged, "{}", {}).error.find("o_in has 3 values"), std::string::npos);
}

// One plan of every shipped config from the published measurements.
TEST(IncPlan, PublishedMeasurementsWithTheShippedConfigs) {
  HADAL_SPEC_DATA_OR_SKIP(path, "inc-ds-r1-0528-g2-tp16/inc_measure_output_hooks_maxabs_5_16.npz");
  const auto rank5 = read_inc_measurement(path);
  ASSERT_TRUE(rank5.has_value());
  // Only two of the sixteen files are at hand: rank 5's stands for all.
  const auto ranges = ranges_from_inc(r1_dims(), std::vector<IncMeasurement>(16, *rank5));
  ASSERT_TRUE(ranges.has_value()) << ranges.error().message;
  for (const char* file : {"inc_quant_per_channel_with_fp8kv_config", "inc_quant_per_channel_bf16kv",
                           "inc_quant_with_fp8kv_config", "inc_quant_fp8kv_pts_scalar_fp8_mla"}) {
    HADAL_SPEC_DATA_OR_SKIP(config_path, std::string("quant_configs/") + file + ".json");
    const auto config = load_inc_config(config_path);
    ASSERT_TRUE(config.has_value());
    const bool is_bf16_kv = std::string(file) == "inc_quant_per_channel_bf16kv";
    IncPlanReport report;
    const auto plan = make_inc_plan(*ranges, *config, {.fp8_cache = !is_bf16_kv}, report);
    ASSERT_TRUE(plan.has_value()) << plan.error().message;
    // 11 of attention in 61 layers, 2 of an MLP or shared expert each, the MoE op and 512 linears in 58.
    EXPECT_EQ(report.num_modules, 61 * 13 + 58 * 513);
    EXPECT_EQ(plan->layers[60].expert_down_scales[81].scale, 16);  // saturates at 3840
    EXPECT_TRUE(report.substitutes.empty());
    const auto naive_plan =
        make_inc_plan(*ranges, *config, {.fp8_cache = !is_bf16_kv, .switches = {.force_naive_scaling = true}}, report);
    EXPECT_EQ(naive_plan->layers[60].expert_down_scales[81].scale, 584);
  }
}

TEST(IncScaleFile, NameAndHashTellWhatTheScalesAreFor) {
  const RangeSet ranges = numbered_ranges(small_dims());
  const IncConfig config = config_of(kPerChannel);
  const IncPlanOptions rounded, exact = {.switches = {.force_naive_scaling = true, .force_scale_fp32 = true}};
  EXPECT_EQ(inc_scale_file_path("d/m", config, rounded),
            "d/m_hooks_maxabs_ACT_MAXABS_HW_WEIGHTS_PCS_MAXABS_POW2_rounded_bf16_gaudi2_0_1.json");
  EXPECT_EQ(inc_scale_file_path("d/m", config, exact),
            "d/m_hooks_maxabs_ACT_MAXABS_HW_WEIGHTS_PCS_MAXABS_POW2_naive_fp32_gaudi2_0_1.json");
  const uint64_t hash = inc_scale_inputs_hash(ranges, config, rounded);
  EXPECT_EQ(hash, inc_scale_inputs_hash(ranges, config, rounded));
  EXPECT_NE(hash, inc_scale_inputs_hash(ranges, config, exact));
  EXPECT_NE(hash, inc_scale_inputs_hash(ranges, config_of(kBf16Kv), rounded));
  RangeSet other = ranges;
  other.layers[2].o_in[0] += 1;
  EXPECT_NE(hash, inc_scale_inputs_hash(other, config, rounded));
}

TEST(IncScaleFile, HoldsScalesAndRowScalesOfWeights) {
  const Built built = build(numbered_ranges(small_dims()), kPerChannel, {});
  const std::string o = "model.layers.0.self_attn.mla_attn.impl.o_proj";
  const TempDir dir;
  const auto path = dir.path() / "s.json";
  ASSERT_TRUE(write_inc_scale_file(path, built.report, {{o, {0.5f, 0.25f}}}, 0xABC).has_value());
  const Json json = load_json(path);
  EXPECT_EQ(json["Mode"], "Scale");
  EXPECT_EQ(json["InputsHash"], "0000000000000abc");
  EXPECT_EQ(json["Nodes"].size(), built.report.scales.size());
  EXPECT_EQ(json["Nodes"][o]["inputs"], Json::parse(fmt::format("[[[{}]]]", built.plan.layers[0].o.input.scale.scale)));
  EXPECT_EQ(json["Nodes"][o]["params"]["weight"], Json::parse(R"({"0": [0.5, 0.25], "1": [1.0]})"));
  EXPECT_FALSE(write_inc_scale_file("/proc/s.json", built.report, {}, 0).has_value());
  // Not to be taken for measurements.
  EXPECT_NE(read_inc_measurement(path).error().message.find("not measurements"), std::string::npos);
}

}  // namespace
}  // namespace hadal
