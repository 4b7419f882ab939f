// A model cut over ranks gives the logits of the whole one, bit for bit: every kernel table, both attention forms,
// widths that end inside scale blocks and panels, steps in pieces. With expert parallelism every number of ranks gives
// the bits of one rank under the same flag. Ranks are threads here, each with a model of its own.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <thread>

#include "comm/local_communicator.h"
#include "formats/hf_config.h"
#include "model/inspect.h"
#include "model/memory_needs.h"
#include "numerics_plans.h"
#include "support/test_files.h"
#include "tiny_model.h"

namespace hadal {
namespace {

constexpr int64_t kTile = 8;

// Rows of a head, columns of o_proj and widths of MLPs end inside scale blocks and panels, leaves of experts have odd
// widths.
Json ragged_config() {
  Json config = tiny_config();
  const Json changes = Json::parse(R"({"num_attention_heads": 8, "qk_nope_head_dim": 24, "v_head_dim": 20,
    "intermediate_size": 264, "moe_intermediate_size": 72, "vocab_size": 520})");
  for (const auto& [key, value] : changes.items()) config[key] = value;
  return config;
}

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

// Joins `world_size` threads to a group and calls body(rank, communicator) on each. What one of them throws is thrown
// again when all are done.
using RankBody = std::function<void(int rank, std::unique_ptr<Communicator> communicator)>;
void run_ranks(int world_size, const RankBody& body) {
  const SegmentSizes sizes = {.world_size = world_size, .slot_bytes = 1 << 16, .piece_bytes = 4096};
  const int fd = SharedSegment::create(sizes).value();
  std::vector<std::string> errors(static_cast<size_t>(world_size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(rank, join_local_group(fd, {.rank = rank, .sizes = sizes, .timeout = std::chrono::minutes(2)}).value());
      } catch (const std::exception& error) {
        errors[static_cast<size_t>(rank)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  close(fd);
  std::string text;
  for (const std::string& error : errors) text += error.empty() ? "" : error + "\n";
  if (!text.empty()) throw std::runtime_error(text);
}

using Logits = std::vector<std::vector<float>>;
using Scenario = std::function<Logits(TestRunner&)>;

// Of rank 0; one rank needs no communicator.
Logits run_scenario(const std::filesystem::path& dir, TestRunner::Options options, int world_size, bool expert_parallel,
                    const Scenario& scenario) {
  options.slice = {.world_size = world_size, .expert_parallel = expert_parallel};
  if (world_size == 1) {
    TestRunner runner(dir, options);
    return scenario(runner);
  }
  Logits logits;
  run_ranks(world_size, [&](int rank, std::unique_ptr<Communicator> communicator) {
    TestRunner::Options mine = options;
    mine.slice.rank = rank;
    mine.communicator = communicator.get();
    TestRunner runner(dir, mine);
    Logits got = scenario(runner);
    if (rank == 0) logits = std::move(got);
  });
  return logits;
}

void expect_same_bits(const Logits& got, const Logits& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    ASSERT_EQ(got[i].size(), wanted[i].size());
    ASSERT_EQ(std::memcmp(got[i].data(), wanted[i].data(), got[i].size() * sizeof(float)), 0) << "position " << i;
  }
}

// A prompt in chunks (full tiles in the expanded form, a tail), then tokens one by one.
Logits prefill_and_decode(TestRunner& runner) {
  TestSequence sequence = runner.make_sequence(random_ids(47, 512, 7), kTile);
  sequence.expanded_end = 40;
  TestSequence* const sequences[] = {&sequence};
  for (const int64_t chunk : {27, 16, 1, 1, 2}) runner.step(sequences, {&chunk, 1});
  return sequence.logits;
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
