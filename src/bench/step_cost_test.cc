#include "bench/step_cost.h"

#include <gtest/gtest.h>

#include <cmath>

#include "formats/hf_config.h"
#include "support/test_files.h"

namespace hadal {
namespace {

ModelConfig config_of(const std::filesystem::path& path) {
  const auto hf = parse_hf_config(load_json(path).dump());
  EXPECT_TRUE(hf) << hf.error().message;
  auto config = make_model_config(*hf);
  EXPECT_TRUE(config) << config.error().message;
  return *config;
}

ModelConfig shape_of(const char* name) { return config_of(source_dir() / "bench" / "shapes" / name); }

double weight_bytes(const ModelConfig& config, int64_t batch) {
  return step_cost(config, decode_shape(batch, 0)).total().weight_bytes;
}

// Per layer of R1, elements: q_a 7168 x 1536 + q_b 1536 x 24576 + kv_a 7168 x 576 + kv_b 512 x 32768 + o 16384 x 7168
// = 187,105,280. An expert: 3 x 7168 x 2048 = 44,040,192. FP8: one byte and 1/4096 of a scale's four bytes... a scale
// for each 128 x 128 block adds 4 / 16384.
constexpr double kR1Attention = 187105280, kR1Expert = 44040192, kScales = 1 + 4.0 / (128 * 128);

TEST(StepCost, R1ReadsWhatItsShapesSay) {
  HADAL_SPEC_DATA_OR_SKIP(path, "config_deepseek-r1.json");
  const ModelConfig config = config_of(path);
  const StepProfile cost = step_cost(config, decode_shape(1, 0));
  const double routed_and_shared = 58 * 9 * kR1Expert * kScales;
  // kv_a has 576 rows = 4.5 blocks: its scales take 5 rows.
  const double half_block_of_scales = 61 * 0.5 * 56 * 4;
  const double attention = 61 * kR1Attention * kScales + half_block_of_scales;
  const double dense_mlps = 3.0 * 3 * 7168 * 18432 * kScales;
  EXPECT_NEAR(cost.of(StepPhase::kExperts).weight_bytes, routed_and_shared, 1);
  EXPECT_NEAR(cost.of(StepPhase::kAttention).weight_bytes, 61 * 512.0 * 32768 * kScales, 1);
  EXPECT_NEAR(cost.of(StepPhase::kDense).weight_bytes + cost.of(StepPhase::kAttention).weight_bytes,
              attention + dense_mlps, 1);
  EXPECT_NEAR(cost.of(StepPhase::kRouting).weight_bytes, 58 * 256 * (7168 * 2.0 + 4), 1);
  EXPECT_NEAR(cost.of(StepPhase::kHead).weight_bytes, 129280 * 7168 * 2.0, 1);
  // docs/performance.md: 37.7 GB a token, 163.9 and 434.5 GB a step of 8 and 32.
  EXPECT_NEAR(weight_bytes(config, 1), 37.67e9, 0.01e9);
  EXPECT_NEAR(weight_bytes(config, 8), 163.94e9, 0.02e9);
  EXPECT_NEAR(weight_bytes(config, 32), 434.5e9, 0.05e9);
}

TEST(StepCost, R1Multiplies) {
  HADAL_SPEC_DATA_OR_SKIP(path, "config_deepseek-r1.json");
  const ModelConfig config = config_of(path);
  // Active parameters 36.62 G with the head; absorbed attention 17.0 MFLOP per position.
  const double active =
      61 * kR1Attention + 58 * 9 * kR1Expert + 3.0 * 3 * 7168 * 18432 + 58.0 * 256 * 7168 + 129280.0 * 7168;
  const double per_position = 61 * 2.0 * 128 * (2 * 512 + 64);
  EXPECT_NEAR(per_position, 17.0e6, 0.01e6);
  EXPECT_NEAR(step_cost(config, decode_shape(1, 0)).total().flops, 2 * active + per_position, 1e3);
  EXPECT_NEAR(step_cost(config, decode_shape(1, 4095)).total().flops, 2 * active + 4096 * per_position, 1e4);
  EXPECT_NEAR(step_cost(config, decode_shape(1, 0)).total().flops, 73.3e9, 0.1e9);
}

TEST(StepCost, SliceOfR1) {
  const ModelConfig config = shape_of("r1_slice.json");
  const StepProfile cost = step_cost(config, decode_shape(1, 0));
  // 1.226 G parameters a token without the router; the head is BF16 in the checkpoint.
  const double head = 8192.0 * 7168;
  const double fp8 = 2 * kR1Attention + 9 * kR1Expert + 3.0 * 7168 * 18432;
  EXPECT_NEAR(fp8 + head, 1.2257e9, 0.0001e9);
  EXPECT_NEAR(cost.total().weight_bytes, fp8 * kScales + 2 * head + 256 * 7168 * 2, 0.1e6);  // 0.1 MB: norms, embedding
  EXPECT_NEAR(cost.of(StepPhase::kHead).flops, 2 * head, 1);
  // No sampled row, no head.
  EXPECT_EQ(step_cost(config, {.sequences = {{4, 0}}, .logit_rows = 0}).of(StepPhase::kHead).weight_bytes, 0);
}

TEST(StepCost, Bf16CheckpointsTakeTwoBytesAnElement) {
  ModelConfig config = shape_of("small.json");
  const double fp8 = step_cost(config, decode_shape(1, 0)).of(StepPhase::kExperts).weight_bytes;
  config.fp8_weights = false;
  EXPECT_NEAR(step_cost(config, decode_shape(1, 0)).of(StepPhase::kExperts).weight_bytes, 2 * fp8 / kScales, 1);
}

TEST(StepCost, AttentionFormsAndCachePasses) {
  const ModelConfig config = shape_of("small.json");  // 4 layers, 16 heads, rows of 512 + 64
  const auto attention = [&](const SequenceCost& sequence) {
    return step_cost(config, {.sequences = {sequence}}).of(StepPhase::kAttention);
  };
  // Three tokens after ten: pairs 11 + 12 + 13 = 36.
  const double projection = 4 * 2 * 3 * 512.0 * 16 * 256;
  const PhaseCost expanded = attention({3, 10, AttentionForm::kExpanded});
  EXPECT_NEAR(expanded.flops, projection + 4 * 2 * 16 * 36 * 320.0, 1);
  EXPECT_NEAR(expanded.kv_bytes, 4 * 13 * 576 * 2.0, 1e-6);  // once for the chunk
  const PhaseCost absorbed = attention({3, 10, AttentionForm::kAbsorbed});
  EXPECT_NEAR(absorbed.flops, projection + 4 * 2 * 16 * 36 * 1088.0, 1);
  EXPECT_NEAR(absorbed.kv_bytes, 4 * 36 * 576 * 2.0, 1e-6);  // once for each query
}

TEST(StepCost, ExpectedDistinctExperts) {
  RouterConfig router;
  router.n_routed_experts = 256;
  router.num_experts_per_tok = 8;
  EXPECT_EQ(expected_distinct_experts(router, 0), 0);
  EXPECT_NEAR(expected_distinct_experts(router, 1), 8, 1e-9);
  EXPECT_NEAR(expected_distinct_experts(router, 2), 15.75, 1e-9);
  EXPECT_NEAR(expected_distinct_experts(router, 32), 163.3, 0.05);
  EXPECT_NEAR(expected_distinct_experts(router, 1e6), 256, 1e-9);
  router.n_routed_experts = 0;
  EXPECT_EQ(expected_distinct_experts(router, 5), 0);
}

TEST(StepCost, LargestShareLiesBetweenMeanAndAll) {
  EXPECT_EQ(expected_largest_share(8, 1, 256), 8);
  EXPECT_EQ(expected_largest_share(256, 8, 32), 32);  // all experts: every bin is full
  EXPECT_NEAR(expected_largest_share(8, 8, 32), 1 + 2.007, 0.01);
  EXPECT_EQ(expected_largest_share(1, 8, 32), 1);  // the one thing is somewhere
}

TEST(StepCost, RanksShareWhatCanBeShared) {
  HADAL_SPEC_DATA_OR_SKIP(path, "config_deepseek-r1.json");
  const ModelConfig config = config_of(path);
  const StepShape step = decode_shape(32, 1000);
  const StepProfile whole = step_cost(config, step), part = step_cost(config, step, {.num_ranks = 8});
  EXPECT_NEAR(part.of(StepPhase::kExperts).weight_bytes, whole.of(StepPhase::kExperts).weight_bytes / 8, 1);
  EXPECT_NEAR(part.of(StepPhase::kAttention).flops, whole.of(StepPhase::kAttention).flops / 8, 1e4);
  EXPECT_EQ(part.of(StepPhase::kAttention).kv_bytes, whole.of(StepPhase::kAttention).kv_bytes);
  EXPECT_EQ(part.of(StepPhase::kRouting).weight_bytes, whole.of(StepPhase::kRouting).weight_bytes);
  // Latent projections: 61 x 7168 x (1536 + 576) elements on every rank.
  const double latent = 61 * 7168.0 * (1536 + 576) * kScales + 61 * 0.5 * 56 * 4;
  EXPECT_NEAR(part.of(StepPhase::kDense).weight_bytes - latent, (whole.of(StepPhase::kDense).weight_bytes - latent) / 8,
              1);
  // Whole experts: 163.3 distinct ones over eight ranks, 20.4 on average, more on the fullest.
  const StepProfile uneven = step_cost(config, step, {.num_ranks = 8, .expert_parallel = true});
  EXPECT_GT(uneven.of(StepPhase::kExperts).weight_bytes, 1.2 * part.of(StepPhase::kExperts).weight_bytes);
  EXPECT_LT(uneven.of(StepPhase::kExperts).weight_bytes, 32 * 58 * 1.05 * kR1Expert);
}

TEST(StepCost, PromptsAreCutAsTheSchedulerCutsThem) {
  const std::vector<StepShape> steps = prefill_shapes(1000, 600, 256);  // chunks of 512, full tiles end at 768
  ASSERT_EQ(steps.size(), 2U);
  ASSERT_EQ(steps[0].sequences.size(), 1U);
  EXPECT_EQ(steps[0].sequences[0].num_tokens, 512);
  EXPECT_EQ(steps[0].logit_rows, 0);
  ASSERT_EQ(steps[1].sequences.size(), 2U);
  EXPECT_EQ(steps[1].sequences[0].num_tokens, 256);
  EXPECT_EQ(steps[1].sequences[0].form, AttentionForm::kExpanded);
  EXPECT_EQ(steps[1].sequences[1].num_tokens, 232);
  EXPECT_EQ(steps[1].sequences[1].first_position, 768);
  EXPECT_EQ(steps[1].sequences[1].form, AttentionForm::kAbsorbed);
  EXPECT_EQ(steps[1].logit_rows, 1);
}

TEST(StepCost, CheckpointAndMemory) {
  HADAL_SPEC_DATA_OR_SKIP(path, "config_deepseek-r1.json");
  const ModelConfig config = config_of(path);
  // The published folder: 688.6 GB, "642 GB" of the guide in units of 2^30.
  EXPECT_NEAR(checkpoint_bytes(config), 688.6e9, 0.1e9);
  EXPECT_EQ(std::ceil(checkpoint_bytes(config) / (1 << 30)), 642);
  // Without the MTP layer; 61 x 576 BF16 values a token.
  EXPECT_NEAR(weight_bytes_per_rank(config, {}), 673.2e9, 0.5e9);
  EXPECT_EQ(kv_bytes_per_token_on_rank(config, {}), 70272);
}

}  // namespace
}  // namespace hadal
