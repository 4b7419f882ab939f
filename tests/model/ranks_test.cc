// A model cut over ranks gives the logits of the whole one, bit for bit: every kernel table, both attention forms,
// widths that end inside scale blocks and panels, steps in pieces. With expert parallelism every number of ranks gives
// the bits of one rank under the same flag. Ranks are threads here, each with a model of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>

#include "numerics_plans.h"
#include "rank_threads.h"
#include "support/test_files.h"

namespace hadal {
namespace {

constexpr int64_t kTile = 8;

Json plain_config() {
  Json config = tiny_config_without_lora();
  config["num_attention_heads"] = 4;
  return config;
}

struct Model {
  const char* name;
  Json (*config)();
  SynthWeights weights;
  std::vector<int> world_sizes;
  std::optional<DType> kv_dtype = std::nullopt;
  NumericsPlan (*numerics)() = nullptr;
};
const Model kModels[] = {{"lora_fp8", tiny_config, SynthWeights::kFp8, {2, 4}},
                         {"ragged_fp8", ragged_config, SynthWeights::kFp8, {2, 4, 8}},
                         {"ragged_bf16", ragged_config, SynthWeights::kBf16, {2, 8}},
                         {"plain_bf16", plain_config, SynthWeights::kBf16, {2, 4}},
                         {"kv_fp8", tiny_config, SynthWeights::kFp8, {4}, DType::kF8E4M3}};

const std::filesystem::path& checkpoint_of(const Model& model) {
  static TempDir root;
  static std::map<std::string, std::filesystem::path> dirs;
  std::filesystem::path& dir = dirs[model.name];
  if (dir.empty()) {
    dir = root.path() / model.name;
    write_tiny_checkpoint(dir, model.config(), model.weights);
  }
  return dir;
}

class Ranks : public testing::TestWithParam<std::tuple<size_t, Isa>> {
 protected:
  const Model& model() const { return kModels[std::get<0>(GetParam())]; }
  TestRunner::Options options() const {
    return {.isa = std::get<1>(GetParam()), .kv_dtype = model().kv_dtype, .num_blocks = 96};
  }
};

TEST_P(Ranks, GiveTheBitsOfOne) {
  const Logits wanted = run_scenario(checkpoint_of(model()), options(), 1, false, prefill_and_decode);
  for (const int world_size : model().world_sizes) {
    SCOPED_TRACE(world_size);
    expect_same_bits(run_scenario(checkpoint_of(model()), options(), world_size, false, prefill_and_decode), wanted);
  }
}

TEST_P(Ranks, GiveTheBitsOfOneWithExpertsWhole) {
  const Logits wanted = run_scenario(checkpoint_of(model()), options(), 1, true, prefill_and_decode);
  for (const int world_size : model().world_sizes) {
    SCOPED_TRACE(world_size);
    expect_same_bits(run_scenario(checkpoint_of(model()), options(), world_size, true, prefill_and_decode), wanted);
  }
}

std::string test_name(const testing::TestParamInfo<Ranks::ParamType>& test) {
  std::string isa = isa_name(std::get<1>(test.param));
  std::replace(isa.begin(), isa.end(), '-', '_');
  return std::string(kModels[std::get<0>(test.param)].name) + "_" + isa;
}

INSTANTIATE_TEST_SUITE_P(Tiny, Ranks,
                         testing::Combine(testing::Range<size_t>(0, std::size(kModels)),
                                          testing::ValuesIn(available_isas())),
                         test_name);

// An open prompt with company and another sequence that decodes between pieces: ranks agree where pieces end, whether
// their workers are alike or not.
class RanksInPieces : public testing::TestWithParam<bool> {};

TEST_P(RanksInPieces, GiveTheBitsOfOne) {
  const bool equal_workers = GetParam();
  const std::filesystem::path& dir = checkpoint_of(kModels[1]);
  const Scenario scenario = [](TestRunner& runner) {
    TestSequence prompt = runner.make_sequence(random_ids(43, 512, 7), kTile);
    TestSequence company = runner.make_sequence(random_ids(43, 512, 8), kTile);
    TestSequence decoding = runner.make_sequence(random_ids(60, 512, 9), kTile);
    decoding.expanded_end = 0;
    TestSequence* const both[] = {&prompt, &company};
    const auto decode = [&] {
      if (decoding.num_done < 60) runner.step(std::array{&decoding}, std::array<int64_t, 1>{1});
    };
    runner.step_in_pieces(both, std::array<int64_t, 2>{27, 1}, 2, decode);
    runner.step_in_pieces(both, std::array<int64_t, 2>{16, 1}, 1, decode);
    while (decoding.num_done < 60) decode();
    Logits all = std::move(prompt.logits);
    for (const TestSequence* sequence : {&company, &decoding}) {
      all.insert(all.end(), sequence->logits.begin(), sequence->logits.end());
    }
    return all;
  };
  TestRunner::Options options = {.num_threads = 2, .num_blocks = 256, .max_tokens_between = 1};
  const Logits wanted = run_scenario(dir, options, 1, false, scenario);
  ASSERT_EQ(wanted.size(), 43u + 2 + 60);
  const auto threads_of = [&](int rank) { return equal_workers ? 2 : 1 + rank; };
  expect_same_bits(run_scenario(dir, options, 4, false, scenario, threads_of), wanted);
}

INSTANTIATE_TEST_SUITE_P(Workers, RanksInPieces, testing::Bool(),
                         [](const auto& test) { return test.param ? "equal" : "unequal"; });

// Inputs quantised in groups of 128 columns: equal where ranks have whole groups.
TEST(RanksQuantised, WholeGroupsGiveTheBitsOfOne) {
  static TempDir root;
  Json config = tiny_config();
  config["moe_intermediate_size"] = 256;
  config["v_head_dim"] = 64;
  write_tiny_checkpoint(root.path() / "model", config, SynthWeights::kFp8);
  for (const Isa isa : available_isas()) {
    SCOPED_TRACE(isa_name(isa));
    const TestRunner::Options options = {.isa = isa, .numerics = fp8_dynamic_plan(), .num_blocks = 96};
    for (const bool expert_parallel : {false, true}) {
      const Logits wanted = run_scenario(root.path() / "model", options, 1, expert_parallel, prefill_and_decode);
      expect_same_bits(run_scenario(root.path() / "model", options, 2, expert_parallel, prefill_and_decode), wanted);
    }
  }
}

// Plans that quantise weights with given scales, inputs with measured ones, or not at all. (Scales that a rank takes
// from its own columns, of weight rows or of tokens, are another's by as much as the columns differ.)
TEST(RanksQuantised, GivenScalesGiveTheBitsOfOne) {
  const std::filesystem::path& dir = checkpoint_of(kModels[1]);
  NumericsPlan fixed = gaudi2_static_plan();
  fixed.fixed_weight_scale = scale_from_amax(0.5F, {});
  for (const NumericsPlan& plan : {gaudi2_runtime_dequant_plan(), fixed}) {
    const TestRunner::Options options = {.isa = available_isas().back(), .numerics = plan, .num_blocks = 96};
    for (const bool expert_parallel : {false, true}) {
      const Logits wanted = run_scenario(dir, options, 1, expert_parallel, prefill_and_decode);
      expect_same_bits(run_scenario(dir, options, 4, expert_parallel, prefill_and_decode), wanted);
    }
  }
}

// The real one, at every degree that its 16 heads and leaves allow.
TEST(RanksOfNano, GiveTheBitsOfOne) {
  const std::filesystem::path dir = source_dir() / "models" / "nano";
  const TestRunner::Options options = {.isa = available_isas().back(), .num_blocks = 96};
  for (const bool expert_parallel : {false, true}) {
    const Logits wanted = run_scenario(dir, options, 1, expert_parallel, prefill_and_decode);
    for (const int world_size : {2, 4, 8, 16}) {
      if (expert_parallel && world_size == 16) continue;  // it has 8 experts
      SCOPED_TRACE(fmt::format("{} ranks{}", world_size, expert_parallel ? ", experts whole" : ""));
      expect_same_bits(run_scenario(dir, options, world_size, expert_parallel, prefill_and_decode), wanted);
    }
  }
}

TEST(RanksOfTinyV3, GiveTheBitsOfOne) {
  const auto config = spec_data("config_tiny_v3.json");
  if (!config) GTEST_SKIP() << skip_reason("config_tiny_v3.json");
  const TempDir root;
  const std::filesystem::path dir = root.path() / "model";
  const Status written = write_synth_checkpoint(
      {.config_path = *config, .out_dir = dir, .values = SynthValues::kTinyFormula, .num_threads = 2});
  ASSERT_TRUE(written) << written.error().message;
  for (const Isa isa : available_isas()) {
    for (const bool expert_parallel : {false, true}) {
      const Logits wanted = run_scenario(dir, {.isa = isa}, 1, expert_parallel, prefill_and_decode);
      for (const int world_size : {2, 4}) {
        SCOPED_TRACE(fmt::format("{} {} ranks, experts whole: {}", isa_name(isa), world_size, expert_parallel));
        expect_same_bits(run_scenario(dir, {.isa = isa}, world_size, expert_parallel, prefill_and_decode), wanted);
      }
    }
  }
}

}  // namespace
}  // namespace hadal
