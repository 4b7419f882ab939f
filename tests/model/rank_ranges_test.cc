// A model cut over ranks is calibrated as the whole one: the ranges that rank 0 gathers are those of a single rank, bit
// for bit, weights included; with expert parallelism those of one rank under the same flag.
#include <gtest/gtest.h>

#include "formats/hf_config.h"
#include "numerics_plans.h"
#include "rank_threads.h"
#include "support/test_files.h"

namespace hadal {
namespace {

const std::vector<int64_t> kWorldSizes = {1, 2, 4};

Json plain_config() {
  Json config = tiny_config_without_lora();
  config["num_attention_heads"] = 4;
  return config;
}

// Gathers twice, so that what a rank has sent before counts once.
RangeSet measure(const std::filesystem::path& dir, TestRunner::Options options) {
  RangeObserver observer =
      RangeObserver::create(make_model_config(load_hf_config(dir).value()).value(), kWorldSizes).value();
  options.ranges = &observer;
  TestRunner runner(dir, options);
  for (const uint32_t seed : {7u, 8u}) {
    TestSequence sequence = runner.make_sequence(random_ids(47, 512, seed), 8);
    sequence.expanded_end = 40;
    runner.run(sequence, seed == 7 ? 20 : 47);
    if (const Status gathered = runner.model().gather_ranges(); !gathered) {
      throw std::runtime_error(gathered.error().message);
    }
  }
  return observer.ranges();
}

struct Model {
  const char* name;
  Json (*config)();
  SynthWeights weights;
  std::vector<int> world_sizes;
  NumericsPlan (*numerics)() = nullptr;
};
const Model kModels[] = {{"lora_fp8", tiny_config, SynthWeights::kFp8, {2, 4}},
                         {"ragged_fp8", ragged_config, SynthWeights::kFp8, {2, 4, 8}},
                         {"ragged_bf16", ragged_config, SynthWeights::kBf16, {8}},
                         {"plain_bf16", plain_config, SynthWeights::kBf16, {2, 4}},
                         {"ragged_gaudi2", ragged_config, SynthWeights::kFp8, {4}, gaudi2_runtime_dequant_plan}};

class RankRanges : public testing::TestWithParam<std::tuple<Model, bool>> {};

TEST_P(RankRanges, AreThoseOfOneRank) {
  const auto& [model, expert_parallel] = GetParam();
  const TempDir root;
  write_tiny_checkpoint(root.path() / "model", model.config(), model.weights);
  for (const Isa isa : {Isa::kPortable, available_isas().back()}) {
    TestRunner::Options options = {.isa = isa, .num_blocks = 96};
    options.slice.expert_parallel = expert_parallel;
    if (model.numerics != nullptr) options.numerics = model.numerics();
    const RangeSet wanted = measure(root.path() / "model", options);
    ASSERT_TRUE(check_range_set(wanted).has_value());
    for (const int world_size : model.world_sizes) {
      SCOPED_TRACE(fmt::format("{}, {} ranks", isa_name(isa), world_size));
      RangeSet got;
      run_ranks(world_size, [&](int rank, std::unique_ptr<Communicator> communicator) {
        TestRunner::Options mine = options;
        mine.num_threads = 1 + rank % 2;
        mine.slice = {.rank = rank, .world_size = world_size, .expert_parallel = expert_parallel};
        mine.communicator = communicator.get();
        RangeSet ranges = measure(root.path() / "model", mine);
        if (rank == 0) got = std::move(ranges);
      });
      EXPECT_EQ(range_set_to_json(got), range_set_to_json(wanted));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, RankRanges, testing::Combine(testing::ValuesIn(kModels), testing::Bool()),
                         [](const testing::TestParamInfo<RankRanges::ParamType>& test) {
                           return std::string(std::get<0>(test.param).name) +
                                  (std::get<1>(test.param) ? "_experts_whole" : "");
                         });

// A rank whose ranges have another length, since it observes other world sizes, is no part of the whole.
TEST(RankRangesOfAnotherRun, AreRefused) {
  const TempDir root;
  write_tiny_checkpoint(root.path(), tiny_config(), SynthWeights::kBf16);
  const ModelConfig config = make_model_config(load_hf_config(root.path()).value()).value();
  run_ranks(2, [&](int rank, std::unique_ptr<Communicator> communicator) {
    RangeObserver observer = RangeObserver::create(config, {rank + 1}).value();
    const Status gathered = observer.gather(*communicator);
    EXPECT_TRUE(rank == 1 || !gathered);
  });
}

}  // namespace
}  // namespace hadal
