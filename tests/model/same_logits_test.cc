// A token's logits, bit for bit, whatever else happens: chunk sizes, threads, block sizes and tables, company in the
// step, steps that run in pieces with others between them. Run for every kernel table, both attention forms, both kinds
// of cache and every kind of numerics plan.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>

#include "numerics_plans.h"
#include "support/test_files.h"
#include "tiny_model.h"

namespace hadal {
namespace {

constexpr int64_t kTile = 8;

struct Model {
  const char* name;
  Json (*config)();
  SynthWeights weights;
  std::optional<DType> kv_dtype = std::nullopt;  // as LoadOptions
  NumericsPlan (*numerics)() = nullptr;
};
const Model kModels[] = {{"lora_fp8", tiny_config, SynthWeights::kFp8},
                         {"plain_bf16", tiny_config_without_lora, SynthWeights::kBf16},
                         {"lora_fp8_kv_fp8", tiny_config, SynthWeights::kFp8, DType::kF8E4M3},
                         {"fp8_dynamic", tiny_config, SynthWeights::kFp8, std::nullopt, fp8_dynamic_plan},
                         {"gaudi2_dynamic", tiny_config, SynthWeights::kFp8, std::nullopt, gaudi2_dynamic_plan},
                         {"gaudi2_inc", tiny_config, SynthWeights::kFp8, DType::kF8E4M3, gaudi2_static_plan}};

const std::filesystem::path& checkpoint_of(size_t model_idx) {
  static TempDir root;
  static std::filesystem::path dirs[std::size(kModels)];
  if (dirs[model_idx].empty()) {
    dirs[model_idx] = root.path() / kModels[model_idx].name;
    write_tiny_checkpoint(dirs[model_idx], kModels[model_idx].config(), kModels[model_idx].weights);
  }
  return dirs[model_idx];
}

void expect_same_bits(const TestSequence& got, const TestSequence& wanted) {
  ASSERT_EQ(got.logits.size(), wanted.logits.size());
  for (size_t position = 0; position < wanted.logits.size(); ++position) {
    const auto& a = got.logits[position];
    const auto& b = wanted.logits[position];
    ASSERT_EQ(a.size(), b.size());
    ASSERT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << "position " << position;
  }
}

class SameLogits : public testing::TestWithParam<std::tuple<size_t, Isa, int64_t>> {
 protected:
  void SetUp() override {
    const auto [model_idx, isa, prompt_tokens] = GetParam();
    dir_ = checkpoint_of(model_idx);
    isa_ = isa;
    kv_dtype_ = kModels[model_idx].kv_dtype;
    if (kModels[model_idx].numerics != nullptr) numerics_ = kModels[model_idx].numerics();
    ids_ = random_ids(static_cast<size_t>(prompt_tokens) + 4, 512, 7);
    TestRunner runner(dir_, {.isa = isa_, .kv_dtype = kv_dtype_, .numerics = numerics_});
    wanted_ = sequence_in(runner);
    runner.run(wanted_, prompt_tokens);  // the prompt whole, then the rest in one step: tokens in absorbed form
  }

  // The prompt and four more tokens, which were not part of it.
  TestSequence sequence_in(TestRunner& runner) const {
    TestSequence sequence = runner.make_sequence(ids_, kTile);
    sequence.expanded_end = std::get<2>(GetParam()) / kTile * kTile;
    return sequence;
  }

  std::filesystem::path dir_;
  Isa isa_ = Isa::kPortable;
  std::optional<DType> kv_dtype_;
  NumericsPlan numerics_;
  std::vector<int32_t> ids_;
  TestSequence wanted_;
};

TEST_P(SameLogits, InChunks) {
  TestRunner runner(dir_, {.isa = isa_, .kv_dtype = kv_dtype_, .numerics = numerics_, .num_blocks = 96});
  for (const int64_t chunk : {1, 3, 64}) {
    SCOPED_TRACE(chunk);
    TestSequence got = sequence_in(runner);
    runner.run(got, chunk);
    expect_same_bits(got, wanted_);
  }
}

TEST_P(SameLogits, WithTwoThreads) {
  TestRunner runner(dir_, {.isa = isa_, .kv_dtype = kv_dtype_, .numerics = numerics_, .num_threads = 2});
  TestSequence got = sequence_in(runner);
  runner.run(got, 5);
  expect_same_bits(got, wanted_);
}

TEST_P(SameLogits, WithOtherBlocks) {
  for (const int64_t block_size : {1, 4, 32}) {
    SCOPED_TRACE(block_size);
    TestRunner runner(dir_, {.isa = isa_,
                             .kv_dtype = kv_dtype_,
                             .numerics = numerics_,
                             .block_size = block_size,
                             .num_blocks = 256,
                             .seed = 99});
    TestSequence got = sequence_in(runner);
    runner.run(got, 16);
    expect_same_bits(got, wanted_);
  }
}

TEST_P(SameLogits, AmongStrangers) {
  TestRunner runner(dir_,
                    {.isa = isa_, .kv_dtype = kv_dtype_, .numerics = numerics_, .num_threads = 2, .num_blocks = 128});
  TestSequence before = runner.make_sequence(random_ids(60, 512, 21), kTile);
  TestSequence after = runner.make_sequence(random_ids(90, 512, 22), kTile);
  TestSequence got = sequence_in(runner);
  runner.run(after, 40);
  after.num_done = 1;  // decodes again over what is cached
  TestSequence* const sequences[] = {&before, &got, &after};
  for (int64_t round = 0; got.num_done < static_cast<int64_t>(ids_.size()); ++round) {
    const int64_t left = static_cast<int64_t>(ids_.size()) - got.num_done;
    const int64_t chunks[] = {1 + round % 3, std::min<int64_t>(left, 1 + round % 7), 1};
    if (before.num_done + chunks[0] > 60) before.num_done = 0;
    runner.step(sequences, chunks);
  }
  expect_same_bits(got, wanted_);
}

// A prompt and company in one open step, and another sequence that decodes after every piece: all as when alone.
TEST_P(SameLogits, InPieces) {
  TestRunner runner(dir_, {.isa = isa_,
                           .kv_dtype = kv_dtype_,
                           .numerics = numerics_,
                           .num_threads = 2,
                           .num_blocks = 256,
                           .max_tokens_between = 1});
  const auto stranger = [&] {
    TestSequence sequence = runner.make_sequence(random_ids(150, 512, 21), kTile);
    sequence.expanded_end = 0;
    return sequence;
  };
  TestSequence wanted_stranger = stranger();
  runner.run(wanted_stranger, 1);
  for (const int64_t count : {1, 3, 1 << 20}) {
    SCOPED_TRACE(count);
    TestSequence got = sequence_in(runner), company = sequence_in(runner), decoding = stranger();
    const auto decode = [&] {
      if (decoding.num_done < 150) runner.step(std::array{&decoding}, std::array<int64_t, 1>{1});
    };
    const auto total = static_cast<int64_t>(ids_.size());
    while (got.num_done < total) {
      const int64_t chunks[] = {std::min<int64_t>(total - got.num_done, 27), 1};
      if (company.num_done >= 4) company.num_done = 0;
      runner.step_in_pieces(std::array{&got, &company}, chunks, count, decode);
    }
    expect_same_bits(got, wanted_);
    while (count == 1 && decoding.num_done < 150) decode();
    if (count == 1) expect_same_bits(decoding, wanted_stranger);
  }
}

std::string test_name(const testing::TestParamInfo<SameLogits::ParamType>& test) {
  std::string isa = isa_name(std::get<1>(test.param));
  std::replace(isa.begin(), isa.end(), '-', '_');
  return std::string(kModels[std::get<0>(test.param)].name) + "_" + isa + "_" + std::to_string(std::get<2>(test.param));
}

// 5 tokens: absorbed only; 43: full tiles and a tail.
INSTANTIATE_TEST_SUITE_P(Tiny, SameLogits,
                         testing::Combine(testing::Range<size_t>(0, std::size(kModels)),
                                          testing::ValuesIn(available_isas()), testing::Values(5, 43)),
                         test_name);

// Beyond one attention segment of 1,024 positions.
TEST(SameLogitsLong, AcrossSegments) {
  const auto isas = available_isas();
  const std::vector<int32_t> ids = random_ids(1100, 512, 3);
  const TestRunner::Options options = {
      .isa = isas.back(), .num_threads = 2, .block_size = 16, .num_blocks = 160, .max_tokens = 1100};
  TestRunner runner(checkpoint_of(0), options);
  TestSequence whole = runner.make_sequence(ids, 256);
  runner.run(whole, 1100);
  TestSequence chunked = runner.make_sequence(ids, 256);
  runner.run(chunked, 100);
  expect_same_bits(chunked, whole);
}

// The same, where a piece is one segment for as many heads as there are threads.
TEST(SameLogitsLong, AcrossSegmentsInPieces) {
  const std::vector<int32_t> ids = random_ids(1100, 512, 3);
  for (const Isa isa : available_isas()) {
    SCOPED_TRACE(isa_name(isa));
    TestRunner runner(checkpoint_of(0), {.isa = isa,
                                         .num_threads = 3,
                                         .block_size = 16,
                                         .num_blocks = 160,
                                         .max_tokens = 1100,
                                         .max_tokens_between = 1});
    TestSequence whole = runner.make_sequence(ids, 256), pieces = runner.make_sequence(ids, 256);
    runner.run(whole, 1100);
    int64_t num_breaks = 0;
    TestSequence* const sequences[] = {&pieces};
    for (const int64_t chunk : {256, 768, 76}) {
      runner.step_in_pieces(sequences, std::span(&chunk, 1), 2, [&] { ++num_breaks; });
    }
    expect_same_bits(pieces, whole);
    EXPECT_GT(num_breaks, 3 * 3 * 2);
  }
}

// What is forgotten leaves no trace: the same rows again, whole and in pieces, while others were wrong in between.
TEST(OpenStep, CanBeDropped) {
  const std::vector<int32_t> ids = random_ids(40, 512, 8), other = random_ids(40, 512, 9);
  TestRunner runner(checkpoint_of(0), {.num_threads = 2, .max_tokens_between = 2});
  TestSequence wanted = runner.make_sequence(ids, kTile);
  runner.run(wanted, 40);
  TestSequence got = runner.make_sequence(ids, kTile);
  const SequenceSpan span = {.num_tokens = 40, .expanded_end = 40, .block_table = got.block_table};
  ASSERT_TRUE(runner.model().open_step({other, {&span, 1}, {}}));
  ASSERT_TRUE(runner.model().run_pieces(7, nullptr));
  // Only tokens in the absorbed form fit between pieces.
  const SequenceSpan two = {.num_tokens = 2, .expanded_end = 2, .block_table = wanted.block_table};
  EXPECT_FALSE(runner.model().forward({std::span(ids).first(2), {&two, 1}, {}}, nullptr));
  runner.model().drop_step();
  EXPECT_EQ(runner.model().num_pieces(), 0);
  runner.run(got, 40);
  expect_same_bits(got, wanted);
}

// The control: an FP8 cache rounds, so logits differ; and no more than rounding can: an error of layout or of scale
// would leave logits that have nothing to do with each other (root mean squares of differences sqrt(2) times their
// own), while a relative error of at most 2^-4 in each key and value leaves a few hundredths.
TEST(Fp8Cache, ChangesLogitsByRoundingOnly) {
  const std::vector<int32_t> ids = random_ids(60, 512, 5);
  for (const Isa isa : available_isas()) {
    SCOPED_TRACE(isa_name(isa));
    TestRunner act(checkpoint_of(0), {.isa = isa}), f8(checkpoint_of(0), {.isa = isa, .kv_dtype = DType::kF8E4M3});
    EXPECT_EQ(act.model().kv_bytes_per_token(),
              f8.model().kv_bytes_per_token() * static_cast<int64_t>(dtype_size_bytes(kernels_for(isa).act_dtype)));
    TestSequence wanted = act.make_sequence(ids, kTile), got = f8.make_sequence(ids, kTile);
    wanted.expanded_end = got.expanded_end = 32;
    act.run(wanted, 16);
    f8.run(got, 16);
    double squares = 0, differences = 0;
    for (size_t position = 0; position < ids.size(); ++position) {
      for (size_t i = 0; i < wanted.logits[position].size(); ++i) {
        squares += std::pow(wanted.logits[position][i], 2);
        differences += std::pow(wanted.logits[position][i] - got.logits[position][i], 2);
      }
    }
    EXPECT_GT(differences, 0);
    EXPECT_LT(std::sqrt(differences / squares), 0.2);
    const double kv_bytes = act.model().profile().of(StepPhase::kAttention).kv_bytes;
    const double f8_kv_bytes = f8.model().profile().of(StepPhase::kAttention).kv_bytes;
    EXPECT_EQ(kv_bytes, f8_kv_bytes * static_cast<double>(dtype_size_bytes(kernels_for(isa).act_dtype)));
  }
}

}  // namespace
}  // namespace hadal
