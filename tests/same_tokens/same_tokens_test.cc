// Same tokens always (design.md section 4): one request gives byte-equal tokens and logprobs alone, among 31 strangers,
// for every chunk size, in slices between the steps of others, on a prefix-cache hit or miss, after preemption, with
// one or two threads, on any number of ranks, on real models through the real engine. Compares bits, so a difference of
// one rounding anywhere fails it.
//
// Proves nothing about correctness (golden.forward does), nor about equality between kernel tables, which is not
// promised.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "engine/engine.h"
#include "formats/hf_config.h"
#include "kernels/kernels.h"
#include "kernels/row_math.h"
#include "model/load_model.h"
#include "model/rank_layout.h"
#include "support/test_files.h"
#include "synth_checkpoint/synth_checkpoint.h"
#include "thread_ranks.h"

namespace hadal {
namespace {

struct ModelCase {
  const char* name;
  const char* tiny_config;  // of the specification's data; null: models/<name>
  int64_t tile_tokens;
  int64_t max_model_len;
  int64_t block_size;
  std::vector<int64_t> prompt_lengths;
  const char* isa = "auto";
  const char* kv_cache_dtype = "auto";
  std::vector<int> world_sizes = {};
};

const ModelCase kCases[] = {
    {"tiny_v3", "config_tiny_v3.json", 8, 256, 4, {5, 7, 8, 9, 40, 200}, "auto", "auto", {2, 4}},
    {"tiny_moonlight", "config_tiny_moonlight.json", 8, 256, 4, {5, 7, 8, 9, 40, 200}},
    {"tiny_v3_portable", "config_tiny_v3.json", 8, 256, 4, {5, 8, 40}, "portable"},
    {"tiny_v3_avx2", "config_tiny_v3.json", 8, 256, 4, {5, 8, 40, 200}, "avx2"},
    {"tiny_v3_avx512", "config_tiny_v3.json", 8, 256, 4, {5, 8, 40, 200}, "avx512"},
    {"tiny_v3_kv_fp8", "config_tiny_v3.json", 8, 256, 4, {5, 8, 40, 200}, "auto", "fp8"},
    {"nano", nullptr, 256, 2048, 64, {5, 255, 256, 257, 700, 1500}, "auto", "auto", {2, 4, 8, 16}},
};

constexpr int64_t kMaxTokens = 32;
constexpr int64_t kNumBatch = 32;

struct Answer {
  std::vector<TokenOutput> tokens;
  std::vector<TokenOutput> prompt_tokens;
  FinishReason finish_reason = FinishReason::kNone;
  std::string error;
  int64_t num_cached_tokens = 0;
};

// Everything that must be equal, as bytes.
std::string bytes_of(const TokenOutput& token) {
  std::string bytes;
  const auto append = [&](const auto& value) { bytes.append(reinterpret_cast<const char*>(&value), sizeof value); };
  append(token.token_id);
  const auto append_logprob = [&](const TokenLogprob& logprob) {
    append(logprob.token_id);
    append(logprob.logprob);
    append(logprob.rank);
  };
  if (token.logprob) append_logprob(*token.logprob);
  for (const TokenLogprob& top : token.top_logprobs) append_logprob(top);
  return bytes;
}

void expect_same(const std::vector<TokenOutput>& got, const std::vector<TokenOutput>& wanted, const char* what) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].token_id, wanted[i].token_id) << what << " " << i;
    ASSERT_TRUE(bytes_of(got[i]) == bytes_of(wanted[i]))
        << what << " " << i << ": logprob " << got[i].logprob.value_or(TokenLogprob{}).logprob << ", alone "
        << wanted[i].logprob.value_or(TokenLogprob{}).logprob;
  }
}

std::vector<int32_t> random_prompt(int64_t length, int64_t vocab_size, uint64_t seed) {
  std::vector<int32_t> ids;
  uint64_t state = seed * 0x9E3779B97F4A7C15 + 1;
  for (int64_t i = 0; i < length; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    ids.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocab_size)));
  }
  return ids;
}

Request make_request(std::string id, std::vector<int32_t> prompt_ids, int64_t max_tokens) {
  Request request;
  request.request_id = std::move(id);
  request.prompt_ids = std::move(prompt_ids);
  request.sampling.temperature = 0;
  request.sampling.max_tokens = max_tokens;
  return request;
}

struct Variant {
  std::string what;
  int num_threads = 2;
  int64_t max_chunk_tokens = 0;
  int64_t block_size = 0;  // 0: the case's
  int64_t num_blocks = 0;  // 0: plenty
  bool enable_prefix_caching = false;
  int64_t tile_tokens = 0;  // 0: the case's
  double max_itl_ms = 0;
  RankSlice ranks = {};
};

class SameTokens : public testing::TestWithParam<ModelCase> {
 protected:
  void SetUp() override {
    const auto kernels = select_kernels(GetParam().isa);
    if (!kernels) GTEST_SKIP() << kernels.error().message;
    kernels_ = *kernels;
    kv_dtype_ = select_kv_dtype(GetParam().kv_cache_dtype, *kernels_).value();
    if (GetParam().tiny_config) {
      const auto config = spec_data(GetParam().tiny_config);
      if (!config) GTEST_SKIP() << skip_reason(GetParam().tiny_config);
      dir_ = temp_.path() / "model";
      const Status written = write_synth_checkpoint(
          {.config_path = *config, .out_dir = dir_, .values = SynthValues::kTinyFormula, .num_threads = 2});
      ASSERT_TRUE(written) << written.error().message;
    } else {
      dir_ = source_dir() / "models" / GetParam().name;
    }
  }

  std::unique_ptr<ForwardModel> load(const Variant& variant) const {
    const LoadOptions options = {
        .kernels = kernels_, .kv_dtype = kv_dtype_, .num_threads = variant.num_threads, .slice = variant.ranks};
    if (variant.ranks.world_size > 1) return load_thread_ranks(dir_, options);
    auto model = load_deepseek_v3(dir_, options);
    if (!model) throw std::runtime_error(model.error().message);
    return std::move(*model);
  }

  std::unique_ptr<Engine> start(const Variant& variant) {
    auto model = load(variant);
    vocab_size_ = model->vocab_size();
    EngineOptions options;
    options.max_model_len = GetParam().max_model_len;
    options.max_num_seqs = kNumBatch;
    options.max_num_batched_tokens = 512;
    options.prompt_tile_tokens = variant.tile_tokens > 0 ? variant.tile_tokens : GetParam().tile_tokens;
    options.block_size = variant.block_size > 0 ? variant.block_size : GetParam().block_size;
    options.num_blocks = variant.num_blocks > 0 ? variant.num_blocks : 16384 / options.block_size;
    options.max_chunk_tokens = variant.max_chunk_tokens;
    options.enable_prefix_caching = variant.enable_prefix_caching;
    options.max_itl_ms = variant.max_itl_ms;
    options.check_invariants = true;
    options.row_math = &row_math_for(kernels_->isa);
    auto engine = make_engine(std::move(model), options);
    if (!engine) throw std::runtime_error(engine.error().message);
    return std::move(*engine);
  }

  // Greedy, and sampled with the logprobs of the prompt.
  std::vector<Request> probes() const {
    std::vector<Request> requests;
    for (const int64_t length : GetParam().prompt_lengths) {
      Request greedy =
          make_request(fmt::format("greedy {}", length), random_prompt(length, vocab_size_, 7), kMaxTokens);
      greedy.sampling.num_logprobs = 5;
      Request sampled = greedy;
      sampled.request_id = fmt::format("sampled {}", length);
      sampled.sampling.temperature = 0.8f;
      sampled.sampling.top_p = 0.95f;
      sampled.sampling.seed = 11;
      sampled.sampling.num_prompt_logprobs = 2;
      requests.push_back(std::move(greedy));
      requests.push_back(std::move(sampled));
    }
    return requests;
  }

  std::vector<Request> greedy_probes() const {
    std::vector<Request> requests = probes();
    std::erase_if(requests, [](const Request& request) { return request.sampling.num_prompt_logprobs >= 0; });
    return requests;
  }

  static std::future<Answer> ask(Engine& engine, const Request& request) {
    auto answer = std::make_shared<Answer>();
    auto ended = std::make_shared<std::promise<Answer>>();
    const Status submitted = engine.submit(request, [answer, ended](RequestOutput&& output) {
      for (auto& token : output.tokens) answer->tokens.push_back(std::move(token));
      for (auto& token : output.prompt_tokens) answer->prompt_tokens.push_back(std::move(token));
      answer->finish_reason = output.finish_reason;
      answer->error = output.error;
      answer->num_cached_tokens = output.num_cached_tokens;
      if (output.finish_reason != FinishReason::kNone) ended->set_value(*answer);
    });
    if (!submitted) throw std::runtime_error(submitted.error().message);
    return ended->get_future();
  }

  // One after another. The first variant's answers become the measure of all others.
  void check_alone(const Variant& variant, bool greedy_only = false) {
    SCOPED_TRACE(variant.what);
    const auto engine = start(variant);
    for (const Request& request : greedy_only ? greedy_probes() : probes()) {
      check(request, ask(*engine, request).get());
    }
  }

  void check(const Request& request, const Answer& answer) {
    SCOPED_TRACE(request.request_id);
    ASSERT_EQ(answer.finish_reason, FinishReason::kLength) << answer.error;
    ASSERT_EQ(answer.tokens.size(), static_cast<size_t>(kMaxTokens));
    const auto [wanted, is_first] = wanted_.try_emplace(request.request_id, answer);
    if (is_first) return;
    expect_same(answer.tokens, wanted->second.tokens, "token");
    expect_same(answer.prompt_tokens, wanted->second.prompt_tokens, "prompt token");
  }

  void check_among_strangers(const Variant& variant);
  void check_prefix_cache();
  void check_preemption();
  void check_sensitivity();

  TempDir temp_;
  std::filesystem::path dir_;
  const KernelTable* kernels_ = nullptr;
  DType kv_dtype_ = DType::kBF16;
  int64_t vocab_size_ = 0;
  std::map<std::string, Answer> wanted_;
};

void SameTokens::check_among_strangers(const Variant& variant) {
  SCOPED_TRACE(variant.what);
  const auto engine = start(variant);
  const std::vector<Request> requests = probes();
  std::vector<std::future<Answer>> answers, strangers;
  const int64_t num_strangers = kNumBatch - static_cast<int64_t>(requests.size());
  for (int64_t i = 0; i < num_strangers; ++i) {
    const int64_t length = 1 + (i * 37) % (GetParam().max_model_len / 4);
    Request stranger = make_request(fmt::format("stranger {}", i), random_prompt(length, vocab_size_, 100 + i), 60);
    stranger.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    strangers.push_back(ask(*engine, stranger));
    if (static_cast<size_t>(i) < requests.size()) answers.push_back(ask(*engine, requests[i]));
  }
  ASSERT_EQ(answers.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) check(requests[i], answers[i].get());
  for (auto& stranger : strangers) EXPECT_EQ(stranger.get().finish_reason, FinishReason::kLength);
}

void SameTokens::check_prefix_cache() {
  SCOPED_TRACE("prefix cache");
  const auto engine = start({.what = "prefix cache", .enable_prefix_caching = true});
  const int64_t tile = GetParam().tile_tokens;
  for (const Request& request : greedy_probes()) {
    check(request, ask(*engine, request).get());
    const Answer again = ask(*engine, request).get();
    check(request, again);
    const int64_t length = static_cast<int64_t>(request.prompt_ids.size());
    const int64_t full_tiles = length / tile * tile;
    const int64_t expected = full_tiles == length ? full_tiles - GetParam().block_size : full_tiles;
    EXPECT_EQ(again.num_cached_tokens, expected) << "the hit is what this is about";
  }
}

// A rival that came first grows until the probe has to give its blocks back in the middle of its answer.
void SameTokens::check_preemption() {
  SCOPED_TRACE("preemption");
  constexpr int64_t kBlockSize = 4;
  for (const Request& request : greedy_probes()) {
    const int64_t length = static_cast<int64_t>(request.prompt_ids.size());
    const int64_t num_blocks = (length + kMaxTokens) / kBlockSize + 4;
    for (const bool caches : {false, true}) {
      const auto engine = start(
          {.what = "preemption", .block_size = kBlockSize, .num_blocks = num_blocks, .enable_prefix_caching = caches});
      auto rival = ask(*engine, make_request("rival", random_prompt(length > 64 ? 8 : 4, vocab_size_, 5), 60));
      auto answer = ask(*engine, request);
      check(request, answer.get());
      EXPECT_EQ(rival.get().finish_reason, FinishReason::kLength);
      engine->stop();
      EXPECT_GT(engine->stats().num_preemptions, 0u) << request.request_id << ": the preemption is what this is about";
    }
  }
}

// The control: another attention form for the same prompt is the same mathematics, rounded elsewhere. Were the
// comparison blind to that, the checks above would prove nothing.
void SameTokens::check_sensitivity() {
  const auto engine = start({.what = "absorbed only", .tile_tokens = 4096});
  const Request longest = greedy_probes().back();
  const Answer answer = ask(*engine, longest).get();
  const std::vector<TokenOutput>& wanted = wanted_.at(longest.request_id).tokens;
  ASSERT_EQ(answer.tokens.size(), wanted.size());
  bool differs = false;
  for (size_t i = 0; i < wanted.size(); ++i) differs |= bytes_of(answer.tokens[i]) != bytes_of(wanted[i]);
  EXPECT_TRUE(differs);
}

TEST_P(SameTokens, WhateverElseGoesOn) {
  check_alone({.what = "alone, one thread", .num_threads = 1});
  check_alone({.what = "alone, two threads"});
  check_alone({.what = "chunks of 512", .max_chunk_tokens = 512}, true);
  check_alone({.what = "chunks of 64", .max_chunk_tokens = 64});
  check_alone({.what = "chunks of 1", .max_chunk_tokens = 1}, true);
  check_among_strangers({.what = "among strangers"});
  // A target that nothing meets: as many slices as there are pieces.
  check_among_strangers({.what = "among strangers, in slices", .max_itl_ms = 0.001});
  check_prefix_cache();
  check_preemption();
  check_sensitivity();
}

class SameTokensOnRanks : public SameTokens {};

// With whole experts on a rank the sums have another order, which is the same on one rank under the flag.
TEST_P(SameTokensOnRanks, WhateverTheirNumber) {
  for (const bool expert_parallel : {false, true}) {
    wanted_.clear();
    check_alone({.what = "one rank", .ranks = {.expert_parallel = expert_parallel}});
    for (const int world_size : GetParam().world_sizes) {
      const RankSlice ranks = {.world_size = world_size, .expert_parallel = expert_parallel};
      const HfConfig hf = load_hf_config(dir_).value();
      if (!check_rank_slice(make_model_config(hf).value(), ranks)) {
        EXPECT_TRUE(expert_parallel && world_size > 8) << "nano has 8 experts";
        continue;
      }
      const std::string what = fmt::format("{} ranks{}", world_size, expert_parallel ? ", experts whole" : "");
      check_alone({.what = what, .num_threads = 1, .ranks = ranks}, world_size > 4);
    }
    // Slices of prompts between steps that decode.
    check_among_strangers({.what = "two ranks, in slices",
                           .num_threads = 1,
                           .max_itl_ms = 0.001,
                           .ranks = {.world_size = 2, .expert_parallel = expert_parallel}});
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SameTokens, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

std::vector<ModelCase> cases_with_ranks() {
  std::vector<ModelCase> cases(std::begin(kCases), std::end(kCases));
  std::erase_if(cases, [](const ModelCase& model) { return model.world_sizes.empty(); });
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Models, SameTokensOnRanks, testing::ValuesIn(cases_with_ranks()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace hadal
