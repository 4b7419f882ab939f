#include "quant/measurement_report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "base/file.h"
#include "quant/inc_ranges.h"
#include "quant/testing/range_samples.h"
#include "support/test_files.h"

namespace hadal {
namespace {

std::string real_file(int rank, const char* extension) {
  return inc_file_path("inc-ds-r1-0528-g2-tp16/inc_measure_output", rank, 16, extension).string();
}

const MeasuredKind* find_kind(const MeasurementReport& report, std::string_view name) {
  const auto found = std::find_if(report.kinds.begin(), report.kinds.end(),
                                  [name](const MeasuredKind& kind) { return kind.name == name; });
  return found == report.kinds.end() ? nullptr : &*found;
}

TEST(PlainDecimal, NeverHasAnExponent) {
  EXPECT_EQ(plain_decimal(140288), "140288");
  EXPECT_EQ(plain_decimal(0), "0");
  EXPECT_EQ(plain_decimal(0.03564453125f), "0.03564453");
  EXPECT_EQ(plain_decimal(0.0000098f), "0.0000098");
  EXPECT_EQ(plain_decimal(std::numeric_limits<float>::max()), "340282346638528859811704183484516925440");
  EXPECT_EQ(plain_decimal(std::numeric_limits<float>::denorm_min()).find('e'), std::string::npos);
}

TEST(MeasurementReport, BothFormsOfARealFileGiveTheSameReport) {
  for (const int rank : {0, 5}) {
    HADAL_SPEC_DATA_OR_SKIP(json_path, real_file(rank, ".json"));
    HADAL_SPEC_DATA_OR_SKIP(npz_path, real_file(rank, ".npz"));
    const auto json = open_measurement_source(json_path), npz = open_measurement_source(npz_path);
    ASSERT_TRUE(json && npz);
    const auto a = make_measurement_report({&*json, 1}, FpRange::kGaudi2);
    const auto b = make_measurement_report({&*npz, 1}, FpRange::kGaudi2);
    EXPECT_EQ(measurement_report_text(a), measurement_report_text(b));
    EXPECT_EQ(measurement_report_json(a), measurement_report_json(b));
    // 103,424 values of 16 ranks, less 1,856 dummies a rank.
    EXPECT_EQ(a.num_values, 103424 / 16 - 1856);
    EXPECT_EQ(a.num_zeros, 0);
    EXPECT_TRUE(a.other_modules.empty());
  }
}

// Kinds that all ranks share, so that one rank's file shows the figures of spec/gaudi-pipeline.md 3.4.
TEST(MeasurementReport, RangesAreThePublishedOnes) {
  HADAL_SPEC_DATA_OR_SKIP(path, real_file(0, ".npz"));
  const auto source = open_measurement_source(path);
  ASSERT_TRUE(source.has_value()) << source.error().message;
  const auto report = make_measurement_report({&*source, 1}, FpRange::kGaudi2);
  struct Case {
    const char* kind;
    int64_t count;
    double min, median, max, unit;  // unit: of the last digit printed there
  };
  const std::string impl = "self_attn.mla_attn.impl.";
  for (const auto& [kind, count, min, median, max, unit] :
       {Case{"self_attn.q_a_proj inputs[0]", 61, 1.99, 4.66, 16.6, 0.1},
        Case{"self_attn.q_a_proj weight", 61, 0.110, 0.167, 0.238, 0.001},
        Case{"self_attn.kv_a_proj_with_mqa weight", 61, 0.208, 0.852, 1.71, 0.01},
        Case{"self_attn.mla_attn.impl.q_proj inputs[0]", 61, 4.66, 8.0, 18.1, 0.1},
        Case{"self_attn.mla_attn.impl.kv_b_proj inputs[0]", 61, 0.060, 7.06, 15.75, 0.01},
        Case{"self_attn.mla_attn.impl.matmul_qk inputs[1]", 61, 3.17, 8.5, 28, 0.01},
        Case{"self_attn.mla_attn.impl.matmul_av inputs[1]", 61, 0.060, 7.06, 15.75, 0.01},
        Case{"self_attn.mla_attn.impl.latent_cache_k inputs[0]", 61, 3.17, 8.5, 28, 0.01},
        Case{"mlp.gate_up_proj inputs[0]", 3, 27.1, 29.1, 38.3, 0.1},
        Case{"mlp.experts.moe_op inputs[0]", 58, 2.52, 9.69, 17.1, 0.1}}) {
    const MeasuredKind* found = find_kind(report, kind);
    ASSERT_NE(found, nullptr) << kind;
    EXPECT_EQ(found->count, count);
    EXPECT_NEAR(found->min, min, unit / 2) << kind;
    EXPECT_NEAR(found->median, median, unit / 2) << kind;
    EXPECT_NEAR(found->max, max, unit / 2) << kind;
  }
  EXPECT_EQ(find_kind(report, "mlp.experts.moe_op outputs[1..] (experts)")->count, 58 * 16);
  EXPECT_EQ(find_kind(report, "mlp.experts.moe_op.w13_list weight")->count, 928);
  EXPECT_EQ(find_kind(report, "mlp.experts.moe_op.w13_list inputs[0]"), nullptr);  // dummies
  EXPECT_EQ(report.checks.front(), "matmul_qk inputs[1] equals latent_cache_k inputs[0]: 61 of 61");
}

// Over all 16 ranks 15 values exceed 3840; ranks 0 and 5, the ones at hand, have 4 and 3 of them.
TEST(MeasurementReport, OutliersOfTheRealFiles) {
  HADAL_SPEC_DATA_OR_SKIP(path0, real_file(0, ".npz"));
  HADAL_SPEC_DATA_OR_SKIP(path5, real_file(5, ".json"));
  const std::vector<MeasurementSource> sources = {*open_measurement_source(path0), *open_measurement_source(path5)};
  const auto report = make_measurement_report(sources, FpRange::kGaudi2);
  EXPECT_EQ(report.outlier_limit, 3840);
  std::vector<float> values;
  for (const MeasuredOutlier& outlier : report.outliers) values.push_back(outlier.value);
  EXPECT_EQ(values, (std::vector<float>{173056, 140288, 134144, 21248, 15488, 4416, 4048}));

  const MeasuredOutlier& combined = report.outliers[0];
  EXPECT_TRUE(combined.is_unused);
  EXPECT_FALSE(combined.local_expert.has_value());
  const MeasuredOutlier& expert = report.outliers[1];
  EXPECT_EQ(expert.module, "model.layers.60.mlp.experts.moe_op");
  EXPECT_EQ(expert.field, "outputs[2]");
  EXPECT_EQ(expert.layer, 60);
  EXPECT_EQ(expert.rank, 5);
  EXPECT_EQ(expert.local_expert, 1);
  EXPECT_EQ(expert.global_expert, 81);
  EXPECT_EQ(report.outliers[5].module, "model.layers.60.mlp.shared_experts.down_proj");

  // What 3.4 says of this expert: hardware-aligned scales saturate at 3840; the naive scale 584 makes values below 9.1
  // subnormal and those below 0.57 zero.
  const ScaleEffect& hw = expert.effects[0];
  EXPECT_EQ(hw.scale, 16);
  EXPECT_EQ(hw.saturates_above, 3840);
  EXPECT_TRUE(hw.saturates);
  const ScaleEffect& naive = expert.effects[3];
  EXPECT_EQ(naive.scale, 584);
  EXPECT_FALSE(naive.saturates);
  EXPECT_EQ(naive.coarse_below, 9.125f);
  EXPECT_EQ(naive.zero_below, 0.5703125f);

  // The combined outputs are not quantised, so 5 tensors saturate with hardware-aligned scales, none with naive ones.
  EXPECT_EQ(report.methods[0].num_saturated, 5);
  EXPECT_EQ(report.methods[1].num_saturated, 0);
  EXPECT_EQ(report.methods[3].num_saturated, 0);

  const std::string text = measurement_report_text(report);
  EXPECT_NE(text.find("140288  model.layers.60.mlp.experts.moe_op outputs[2]\n"
                      "  layer 60, rank 5, local expert 1 (expert 81)"),
            std::string::npos);
}

TEST(MeasurementReport, Gaudi3HoldsMore) {
  HADAL_SPEC_DATA_OR_SKIP(path, real_file(5, ".npz"));
  const auto source = open_measurement_source(path);
  const auto report = make_measurement_report({&*source, 1}, FpRange::kGaudi3);
  EXPECT_EQ(report.outlier_limit, 57344);
  EXPECT_EQ(report.outliers.size(), 3u);
}

TEST(MeasurementReport, RangeSetsAndFilesWithoutARank) {
  const TempDir dir;
  RangeSet set = numbered_ranges(small_dims());
  set.layers[1].expert_down_in[5] = 0;
  set.layers[2].expert_down_in[7] = 5000;
  ASSERT_TRUE(write_range_set(dir.path() / "ranges.json", set).has_value());
  const auto ours = open_measurement_source(dir.path() / "ranges.json");
  ASSERT_TRUE(ours.has_value()) << ours.error().message;
  const auto report = make_measurement_report({&*ours, 1}, FpRange::kGaudi2);
  EXPECT_EQ(report.zero_experts, std::vector<std::string>{"layer 1, local expert 5 (expert 5)"});
  ASSERT_EQ(report.outliers.size(), 1u);
  EXPECT_EQ(report.outliers[0].global_expert, 7);

  IncMeasurement unified = ours->measurement;
  unified.local_rank = std::nullopt;
  unified.nodes.push_back({"model.embed", {1}, {}, std::nullopt});
  ASSERT_TRUE(write_file_atomically(dir.path() / "any.json", inc_measurement_json(unified)).has_value());
  const auto any = open_measurement_source(dir.path() / "any.json");
  ASSERT_TRUE(any.has_value()) << any.error().message;
  const auto unnamed = make_measurement_report({&*any, 1}, FpRange::kGaudi2);
  EXPECT_FALSE(unnamed.outliers[0].global_expert.has_value());
  EXPECT_EQ(unnamed.other_modules, std::vector<std::string>{"model.embed"});
}

TEST(MeasurementReport, WrongFilesAreNamed) {
  const TempDir dir;
  const auto mod_list = dir.path() / "m_hooks_maxabs_0_1_mod_list.json", junk = dir.path() / "junk.json";
  ASSERT_TRUE(write_file_atomically(mod_list, "[]").has_value());
  ASSERT_TRUE(write_file_atomically(junk, "{\"format\":\"hadal ranges\"}").has_value());
  EXPECT_NE(open_measurement_source(mod_list).error().message.find("a list of modules"), std::string::npos);
  EXPECT_EQ(open_measurement_source(junk).error().message.find(junk.string()), 0u);
  EXPECT_EQ(open_measurement_source(dir.path() / "absent").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace hadal
