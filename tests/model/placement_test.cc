// Bits do not depend on where work is placed: NUMA nodes, threads, and segments of a long context side by side.
#include <gtest/gtest.h>

#include <cstring>

#include "formats/hf_config.h"
#include "model/deepseek_v3.h"
#include "support/test_files.h"
#include "tiny_model.h"

namespace hadal {
namespace {

constexpr int64_t kBlockSize = 64;

// Two groups of heads, the second one small; the reference is too slow for more than the usual few.
Json long_config(Isa isa) {
  Json config = tiny_config();
  config["max_position_embeddings"] = 16384;
  if (isa != Isa::kReference) config["num_attention_heads"] = config["num_key_value_heads"] = 36;
  return config;
}

// As load_deepseek_v3(), with a placement of the test's choice.
std::unique_ptr<DeepseekV3Model> load(const std::filesystem::path& dir, Isa isa, DType kv_dtype,
                                      const NodeShares& shares) {
  const HfConfig hf = load_hf_config(dir).value();
  ModelConfig config = make_model_config(hf).value();
  const Checkpoint checkpoint = Checkpoint::open(dir).value();
  const KernelTable& kernels = kernels_for(isa);
  ModelWeights weights = load_weights(config, weight_plan(config), checkpoint, kernels.act_dtype, shares, {}).value();
  return std::make_unique<DeepseekV3Model>(std::move(config), std::move(weights), kernels, kv_dtype,
                                           std::make_unique<ThreadPool>(shares.num_threads()), shares,
                                           ForwardObserver());
}

// Logits of one step: some sequences at depths of many segments and of one, and a chunk of a prompt. In so many pieces
// at a time; 0: whole.
std::vector<float> step_logits(DeepseekV3Model& model, const std::vector<int64_t>& depths, int64_t num_pieces = 0) {
  EXPECT_TRUE(model.allocate_kv(512, kBlockSize, 64).has_value());
  model.fill_kv(5);
  std::vector<std::vector<int32_t>> tables;
  std::vector<SequenceSpan> spans;
  std::vector<int32_t> rows;
  const std::vector<int32_t> ids = random_ids(64, 512, 3);
  int32_t next_block = 0;
  int64_t row = 0;
  const auto add = [&](int64_t first_position, int64_t num_tokens, int64_t expanded_end) {
    tables.emplace_back();
    for (int64_t i = 0; i * kBlockSize < first_position + num_tokens; ++i) tables.back().push_back(next_block++ % 512);
    spans.push_back({.token_begin = row,
                     .num_tokens = num_tokens,
                     .first_position = first_position,
                     .expanded_end = expanded_end,
                     .block_table = {}});
    row += num_tokens;
  };
  for (const int64_t depth : depths) add(depth, 1, 0);
  add(1500, 20, 4096);
  for (size_t i = 0; i < spans.size(); ++i) spans[i].block_table = tables[i];
  for (int64_t i = 0; i < row; ++i) rows.push_back(static_cast<int32_t>(i));
  std::vector<float> logits(static_cast<size_t>(row * model.vocab_size()));
  const StepInput input = {std::span(ids).first(static_cast<size_t>(row)), spans, rows};
  if (num_pieces == 0) {
    const Status done = model.forward(input, logits.data());
    EXPECT_TRUE(done.has_value()) << done.error().message;
    return logits;
  }
  EXPECT_TRUE(model.prepare_pieces(1).has_value());
  EXPECT_TRUE(model.open_step(input).has_value());
  for (int64_t left = model.num_pieces(); left > 0; left -= num_pieces) {
    EXPECT_TRUE(model.run_pieces(std::min(num_pieces, left), logits.data()).has_value());
  }
  return logits;
}

class Placement : public testing::TestWithParam<std::pair<Isa, DType>> {};

TEST_P(Placement, ChangesNoBit) {
  const auto [isa, kv_dtype] = GetParam();
  TempDir root;
  write_tiny_checkpoint(root.path() / "model", long_config(isa), SynthWeights::kFp8);
  // Lengths at the edges of segments and of waves of segments; one alone, and several of unequal length.
  for (const std::vector<int64_t>& depths : {std::vector<int64_t>{1023},
                                             {1024},
                                             {7300},
                                             {2100, 3},
                                             {1024, 4500, 2047, 700},
                                             {3000, 1024, 1, 2050, 1023, 2048, 5}}) {
    const auto alone = load(root.path() / "model", isa, kv_dtype, NodeShares{});
    const std::vector<float> wanted = step_logits(*alone, depths);
    for (const NodeShares& shares : {NodeShares{.num_nodes = 1, .node_of_worker = {0, 0, 0}},
                                     NodeShares{.num_nodes = 3, .node_of_worker = {0, 1, 2, 0}}}) {
      const auto model = load(root.path() / "model", isa, kv_dtype, shares);
      for (const int64_t num_pieces : {0, 2}) {
        const std::vector<float> got = step_logits(*model, depths, num_pieces);
        ASSERT_EQ(got.size(), wanted.size());
        EXPECT_EQ(std::memcmp(got.data(), wanted.data(), got.size() * sizeof(float)), 0)
            << shares.num_threads() << " threads on " << shares.num_nodes << " nodes, first depth " << depths.front()
            << ", pieces " << num_pieces;
      }
    }
  }
}

// Every table, and one with an FP8 cache.
std::vector<std::pair<Isa, DType>> cases() {
  std::vector<std::pair<Isa, DType>> cases;
  for (const Isa isa : available_isas()) cases.emplace_back(isa, kernels_for(isa).act_dtype);
  cases.emplace_back(available_isas().back(), DType::kF8E4M3);
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Tables, Placement, testing::ValuesIn(cases()), [](const auto& test) {
  std::string name = isa_name(test.param.first);
  std::replace(name.begin(), name.end(), '-', '_');
  return name + "_" + dtype_name(test.param.second);
});

}  // namespace
}  // namespace hadal
