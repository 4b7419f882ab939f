#include "bench/network_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/hf_config.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

// DeepSeek-R1's shapes, as far as traffic goes.
ModelConfig r1() {
  ModelConfig config;
  config.hidden_size = 7168;
  config.vocab_size = 129280;
  config.num_hidden_layers = 61;
  config.first_k_dense_replace = 3;
  config.router.n_routed_experts = 256;
  return config;
}

double milliseconds(NodeLayout layout, const char* network, int64_t batch) {
  return 1e3 * network_seconds(step_traffic(r1(), layout, 2, batch, batch), parse_network(network).value());
}

// Table C3 of the study, two nodes: milliseconds per step for batches of 1, 8 and 32, as printed there.
TEST(NetworkPlan, TimesAreThoseOfTheStudy) {
  struct Row {
    NodeLayout layout;
    const char* network;
    double batch_1, batch_8, batch_32;
  };
  const Row rows[] = {
      {NodeLayout::kTensorBf16, "1gbe", 22, 128, 490},     {NodeLayout::kTensorBf16, "25gbe", 4.3, 8.6, 23},
      {NodeLayout::kTensorBf16, "100gbe", 3.3, 4.8, 10},   {NodeLayout::kTensorBf16, "200gb-rdma", 0.57, 1.1, 3.0},
      {NodeLayout::kDataExpert, "1gbe", 18, 50, 179},      {NodeLayout::kDataExpert, "25gbe", 3.9, 5.2, 10},
      {NodeLayout::kDataExpert, "100gbe", 3.1, 3.5, 5.4},  {NodeLayout::kDataExpert, "200gb-rdma", 0.52, 0.68, 1.3},
      {NodeLayout::kDataGather, "1gbe", 21, 64, 234},      {NodeLayout::kDataGather, "25gbe", 4.1, 5.8, 13},
      {NodeLayout::kDataGather, "100gbe", 3.1, 3.7, 6.2},  {NodeLayout::kDataGather, "200gb-rdma", 0.54, 0.75, 1.6},
      {NodeLayout::kPipeline, "1gbe", 0.24, 1.1, 4.0},     {NodeLayout::kPipeline, "25gbe", 0.07, 0.10, 0.22},
      {NodeLayout::kPipeline, "100gbe", 0.05, 0.06, 0.11}, {NodeLayout::kPipeline, "200gb-rdma", 0.01, 0.01, 0.03}};
  for (const Row& row : rows) {
    const double expected[] = {row.batch_1, row.batch_8, row.batch_32};
    for (size_t i = 0; i < 3; ++i) {
      // One unit of the last digit printed there.
      const double digit = expected[i] >= 10 ? 1 : expected[i] >= 1 ? 0.1 : 0.01;
      EXPECT_NEAR(milliseconds(row.layout, row.network, kNetworkBatches[i]), expected[i], digit)
          << node_layout_name(row.layout) << " " << row.network << " batch " << kNetworkBatches[i];
    }
  }
}

TEST(NetworkPlan, CeilingsOfPrefillAreThoseOfTheStudy) {
  Machine machine;
  machine.read_bytes_per_s = 480e9;
  machine.bf16_flops = 1e13;
  HADAL_SPEC_DATA_OR_SKIP(path, "config_deepseek-r1.json");
  const auto hf = parse_hf_config(load_json(path).dump());
  const auto config = make_model_config(hf.value());
  const std::pair<const char*, std::pair<double, double>> expected[] = {
      {"1gbe", {66, 186}}, {"25gbe", {1643, 4593}}, {"100gbe", {4529, 12639}}, {"200gb-rdma", {13033, 36426}}};
  for (const auto& [network, rates] : expected) {
    const auto plan = plan_network(config.value(), machine, parse_network(network).value(), 2).value();
    EXPECT_NEAR(plan.layouts[1].prefill_tokens_per_s, rates.first, 0.004 * rates.first + 0.5) << network;
    EXPECT_NEAR(plan.layouts[2].prefill_tokens_per_s, rates.second, 0.004 * rates.second + 0.5) << network;
    EXPECT_GT(plan.layouts[4].prefill_tokens_per_s, 8000) << network;
  }
}

// C2: 28.7 KB per token and layer, 1.76 MB per token cross the wire; logits 258.6 KB when gathered in BF16. This
// program sums in FP32, does not sum the embedding, and of half of the logits sends 8 bytes for each 256 of them, the
// 64 best as (value, id), two heads.
TEST(NetworkPlan, BytesPerToken) {
  const StepTraffic theirs = step_traffic(r1(), NodeLayout::kTensorBf16, 2, 1, 1);
  EXPECT_EQ(theirs.exchanges, 123);
  EXPECT_EQ(theirs.bytes, 123.0 * 14336);
  const StepTraffic ours = step_traffic(r1(), NodeLayout::kTensor, 2, 1, 1);
  EXPECT_EQ(ours.exchanges, 123);
  EXPECT_EQ(ours.bytes, 122.0 * 28672 + (253 * 8 + 64 * 8 + 8 + 8));
  EXPECT_EQ(ours.payload_bytes, ours.bytes);
  const StepTraffic prompt = step_traffic(r1(), NodeLayout::kTensor, 2, 100, 0);
  EXPECT_EQ(prompt.exchanges, 122);
  EXPECT_EQ(prompt.bytes, 100 * 122.0 * 28672);
}

// Four nodes: two rounds of the tree, three digests of logits.
TEST(NetworkPlan, MoreNodes) {
  const StepTraffic four = step_traffic(r1(), NodeLayout::kTensor, 4, 1, 1);
  EXPECT_EQ(four.exchanges, 2 * 122 + 3);
  EXPECT_EQ(four.bytes, 2 * 122.0 * 28672 + (2 * 128 + 125) * 8 + 3 * 520 + 8);
  EXPECT_EQ(four.payload_bytes, 122.0 * 28672 + (2 * 128 + 125) * 8 + 3 * 520 + 8);
  EXPECT_EQ(step_traffic(r1(), NodeLayout::kTensor, 1, 8, 8).bytes, 0);
  EXPECT_EQ(step_traffic(r1(), NodeLayout::kPipeline, 4, 1, 1).exchanges, 4);
}

TEST(NetworkPlan, NetworksByNameAndByFigures) {
  const Network measured = parse_network("12.5,0.5").value();
  EXPECT_DOUBLE_EQ(measured.alpha_s, 12.5e-6);
  EXPECT_DOUBLE_EQ(measured.bytes_per_s, 0.5e9);
  for (const char* text :
       {"", "25gb", "30", "30,", ",2", "0,1", "-1,2", "1,-2", "1,2,3", "nan,1", "1,inf", "1e999,1"}) {
    const auto network = parse_network(text);
    ASSERT_FALSE(network) << text;
    EXPECT_THAT(network.error().message, HasSubstr("--network")) << text;
  }
  EXPECT_THAT(parse_network("25gb").error().message, HasSubstr("did you mean 25gbe?"));
}

TEST(NetworkPlan, RefusesNodesThatNoTreeJoins) {
  Machine machine;
  machine.read_bytes_per_s = machine.bf16_flops = 1e12;
  for (const int nodes : {-1, 0, 1, 3, 12, 128, 1 << 30}) {
    const auto plan = plan_network(r1(), machine, network_table()[0], nodes);
    ASSERT_FALSE(plan) << nodes;
    EXPECT_THAT(plan.error().message, HasSubstr("--nnodes"));
  }
}

TEST(NetworkPlan, TwoNodesComputeInHalfTheTime) {
  HADAL_SPEC_DATA_OR_SKIP(path, "config_deepseek-r1.json");
  const auto config = make_model_config(parse_hf_config(load_json(path).dump()).value());
  Machine machine;  // C4: 480 GB/s, all of it reached
  machine.read_bytes_per_s = 480e9;
  machine.bf16_flops = 1e15;
  machine.efficiency = {1, 1, 1, 1};
  const NetworkPlan plan = plan_network(config.value(), machine, parse_network("25gbe").value(), 2).value();
  EXPECT_NEAR(1e3 * plan.one_node_s[0], 78, 2);
  EXPECT_NEAR(1e3 * plan.all_nodes_s[0], 39, 4);  // latent projections are read on both
  const std::string text = network_plan_text(plan);
  EXPECT_THAT(text, HasSubstr("2 nodes, 25gbe (30 us an exchange, 2.9 GB/s)"));
  EXPECT_THAT(text, HasSubstr("tensor over 2 nodes"));
  EXPECT_EQ(network_plan_to_json(plan)["token_payload_bytes"], 122 * 28672);
  EXPECT_EQ(network_plan_to_json(plan)["row_payload_bytes"], 253 * 8 + 528);
  EXPECT_EQ(network_plan_to_json(plan)["layouts"][0]["steps"][0]["payload_bytes"], 122 * 28672 + 253 * 8 + 528);
}

}  // namespace
}  // namespace hadal
