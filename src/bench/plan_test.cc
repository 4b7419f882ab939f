#include "bench/plan.h"

#include <gtest/gtest.h>

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

MachinePlan plan_on(const ModelConfig& config, const char* machine, int64_t context_tokens, int64_t concurrency = 1) {
  return plan_machine(config, *machine_by_name(machine), {context_tokens, concurrency});
}

double rate_of(const MachinePlan& plan, int64_t batch) {
  for (const DecodeRate& rate : plan.decode) {
    if (rate.batch == batch) return rate.short_tokens_per_s;
  }
  return 0;
}

// The guide's hardware table: R1 on one node of eight 96 GB cards with up to 32k of context, Kimi-K2 on two.
TEST(Plan, GuideHardwareTable) {
  HADAL_SPEC_DATA_OR_SKIP(r1_path, "config_deepseek-r1-0528.json");
  HADAL_SPEC_DATA_OR_SKIP(kimi_path, "config_kimi-k2-instruct.json");
  const ModelConfig r1 = config_of(r1_path), kimi = config_of(kimi_path);
  EXPECT_TRUE(plan_on(r1, "8x-gaudi2", 32768).fits);
  EXPECT_FALSE(plan_on(r1, "8x-gaudi2", 65536).fits);
  EXPECT_TRUE(plan_on(r1, "2x8-gaudi2", 32768, 16).fits);
  EXPECT_FALSE(plan_on(kimi, "8x-gaudi2", 1024).fits);
  EXPECT_EQ(plan_on(kimi, "8x-gaudi2", 1024).max_context_tokens, 0);
  EXPECT_TRUE(plan_on(kimi, "2x8-gaudi2", 32768).fits);
}

// docs/performance.md, estimates for servers: tokens/s at batch 1 and 32.
TEST(Plan, ServersAgreeWithTheEstimatesByHand) {
  HADAL_SPEC_DATA_OR_SKIP(path, "config_deepseek-r1.json");
  const ModelConfig config = config_of(path);
  const MachinePlan epyc = plan_on(config, "2x-epyc-9005", 32768), xeon = plan_on(config, "2x-xeon-6980p", 32768);
  EXPECT_NEAR(rate_of(epyc, 1), 22, 0.2 * 22);
  EXPECT_NEAR(rate_of(epyc, 32), 60, 0.2 * 60);
  EXPECT_NEAR(rate_of(xeon, 1), 31, 0.2 * 31);
  EXPECT_NEAR(rate_of(xeon, 32), 85, 0.2 * 85);
  EXPECT_NEAR(2048 / prefill_seconds(config, epyc.machine, 2048), 700, 0.2 * 700);
  EXPECT_NEAR(2048 / prefill_seconds(config, xeon.machine, 2048), 1750, 0.2 * 1750);
}

// docs/performance.md, targets on 2 Zen 4 cores for the slice of R1, worked out by hand from kernel measurements.
TEST(Plan, SliceOfR1OnTwoCores) {
  const ModelConfig config = config_of(source_dir() / "bench" / "shapes" / "r1_slice.json");
  Ceilings ceilings;
  ceilings.num_threads = 2;
  ceilings.read_bytes_per_s = 34.5e9;
  ceilings.bf16_flops = 456e9;
  ceilings.barrier_s = 0.3e-6;
  const Machine machine = machine_from_ceilings(ceilings, 24e9);
  const MachinePlan plan = plan_machine(config, machine, {4096, 1});
  EXPECT_NEAR(rate_of(plan, 1), 26, 0.1 * 26);
  EXPECT_NEAR(plan.decode[0].full_tokens_per_s, 23, 0.1 * 23);
  EXPECT_NEAR(rate_of(plan, 8), 70, 0.1 * 70);
  EXPECT_NEAR(rate_of(plan, 32), 85, 0.1 * 85);
  EXPECT_NEAR(512 / prefill_seconds(config, machine, 512), 169, 0.1 * 169);
  EXPECT_NEAR(2048 / prefill_seconds(config, machine, 2048), 155, 0.1 * 155);
}

// One phase at a time: bytes and FLOPs of different phases are not set off against each other.
TEST(Plan, PhasesAddUp) {
  const ModelConfig config = config_of(source_dir() / "bench" / "shapes" / "r1_slice.json");
  Machine machine;
  machine.read_bytes_per_s = 34.5e9;
  machine.bf16_flops = 456e9;
  machine.efficiency = {1, 1, 1, 1};
  const StepShape step = decode_shape(32, 0);
  const StepProfile cost = step_cost(config, step);
  // At 32 tokens an expert of the 256 has one on average: all wait for memory. The shared one multiplies.
  const double shared_flops = 32 * 2 * 3 * 7168.0 * 2048, shared_bytes = 3 * 7168.0 * 2048;
  double expected = shared_flops / 456e9 - shared_bytes / 34.5e9;
  for (const PhaseCost& phase : cost.phases) {
    expected += std::max((phase.weight_bytes + phase.kv_bytes) / 34.5e9, phase.flops / 456e9);
  }
  EXPECT_NEAR(step_seconds(config, machine, step), expected, 0.01 * expected);  // 1 %: element-wise work
  // The experts wait for memory, the rest for the multipliers: no maximum over the whole step.
  EXPECT_GT(expected, 1.2 * std::max(cost.total().weight_bytes / 34.5e9, cost.total().flops / 456e9));
  machine.sync_s = 1e-3;
  machine.syncs_per_layer = 5;
  EXPECT_NEAR(step_seconds(config, machine, step), expected + 2 * 5e-3, 0.01 * expected);
}

// Half of the experts' tokens arrive in lumps: the mean is below the break-even of 6.6 tokens, some experts above it.
TEST(Plan, UnevenExpertsCostMoreThanTheirMean) {
  const ModelConfig config = config_of(source_dir() / "bench" / "shapes" / "r1_slice.json");
  Machine machine;
  machine.read_bytes_per_s = 34.5e9;
  machine.bf16_flops = 456e9;
  machine.efficiency = {1, 1, 1, 1};
  const auto expert_seconds = [&](int64_t batch) {  // all that grows with a faster memory or multiplier is taken off
    ModelConfig without = config;
    without.router.n_routed_experts = 0;
    without.first_k_dense_replace = 2;
    without.n_shared_experts = 0;
    ModelConfig only = config;
    only.n_shared_experts = 0;
    only.first_k_dense_replace = 1;
    return step_seconds(only, machine, decode_shape(batch, 0)) - step_seconds(without, machine, decode_shape(batch, 0));
  };
  const double expert_bytes = 3 * 7168.0 * 2048 * (1 + 4.0 / (128 * 128)), dense_bytes = 3 * 7168.0 * 18432;
  // One token: eight experts are read; the dense MLP that takes the layer's place in `without` goes off.
  EXPECT_NEAR(expert_seconds(1), (8 * expert_bytes - dense_bytes) / 34.5e9, 0.02 * 8 * expert_bytes / 34.5e9);
  // 200 tokens, 6.25 for each expert: more than reading all of them, more than multiplying, less than both.
  const double dense_flops = 200 * 2 * dense_bytes, reading = 256 * expert_bytes / 34.5e9;
  const double multiplying = 200 * 8 * 2 * 3 * 7168.0 * 2048 / 456e9;
  const double routed = expert_seconds(200) + dense_flops / 456e9;
  EXPECT_GT(routed, 1.1 * std::max(reading, multiplying));
  EXPECT_LT(routed, reading + multiplying);
}

TEST(Plan, RatesMoveTheRightWay) {
  const ModelConfig config = config_of(source_dir() / "bench" / "shapes" / "small.json");
  const MachinePlan plan = plan_on(config, "8x-h200", 8192);
  for (size_t i = 1; i < plan.decode.size(); ++i) {
    EXPECT_GT(plan.decode[i].short_tokens_per_s, plan.decode[i - 1].short_tokens_per_s);
  }
  for (const DecodeRate& rate : plan.decode) EXPECT_LT(rate.full_tokens_per_s, rate.short_tokens_per_s);
  for (size_t i = 1; i < plan.ttft.size(); ++i) EXPECT_GT(plan.ttft[i].seconds, plan.ttft[i - 1].seconds);
  EXPECT_EQ(plan.max_context_tokens, config.max_position_embeddings / 1024 * 1024);
  EXPECT_LT(plan_on(config, "8x-h200", 16384).max_concurrency, plan.max_concurrency);
}

TEST(Plan, UnknownMemoryHoldsEverything) {
  const ModelConfig config = config_of(source_dir() / "bench" / "shapes" / "small.json");
  Machine machine;
  machine.read_bytes_per_s = 1e9;
  machine.bf16_flops = 1e12;
  const MachinePlan plan = plan_machine(config, machine, {1024, 1000});
  EXPECT_TRUE(plan.fits);
  EXPECT_EQ(plan.load_s, 0);
}

}  // namespace
}  // namespace hadal
