#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "engine/testing/fake_model.h"
#include "eval/divergence.h"
#include "eval/documents.h"
#include "eval/perplexity.h"
#include "eval/window_runner.h"

namespace hadal {
namespace {

using ::testing::ElementsAre;
using testing::FakeModel;
using testing::FakeModelState;
using ::testing::HasSubstr;

std::vector<std::string> parts(const std::vector<Document>& documents) {
  std::vector<std::string> parts;
  for (const Document& document : documents) parts.push_back(document.prompt + "|" + document.text);
  return parts;
}

TEST(Documents, LinesOfEveryKindAndWholeFiles) {
  const auto jsonl = parse_documents(
      "{\"text\": \"one\"}\n{\"question\": \"q\", \"answer\": \"a\"}\n{\"text\": \"\"}\n"
      "{\"hadal_transcript\": 1, \"config\": {\"chat\": false}}\n{\"prompt\": \"p\", \"answer\": \" 4\", \"index\": "
      "0}\n",
      "d.jsonl", true);
  ASSERT_TRUE(jsonl) << jsonl.error().message;
  EXPECT_THAT(parts(*jsonl), ElementsAre("|one", "Question: q\nAnswer:| a", "p| 4"));
  EXPECT_THAT(parts(*parse_documents("{\"text\": 1}\n", "d.txt", false)), ElementsAre("|{\"text\": 1}\n"));
  const auto chat = parse_documents("{\"hadal_transcript\": 1, \"config\": {\"chat\": true}}\n", "d.jsonl", true);
  EXPECT_EQ(chat.error().code, ErrorCode::kUnsupported);
}

TEST(Documents, DamagedLinesAreRefusedByNumber) {
  const std::pair<const char*, const char*> cases[] = {{"{\"text\": 1}", "d.jsonl:2: \"text\" must be a string"},
                                                       {"{\"question\": \"q\"}", "d.jsonl:2: \"answer\" is missing"},
                                                       {"{}", "d.jsonl:2: \"text\" is missing"},
                                                       {"x", "d.jsonl:2: not valid JSON"}};
  for (const auto& [line, message] : cases) {
    const auto read = parse_documents("{\"text\": \"one\"}\n" + std::string(line), "d.jsonl", true);
    ASSERT_FALSE(read) << line;
    EXPECT_THAT(read.error().message, HasSubstr(message));
  }
  EXPECT_EQ(parse_documents("\n", "d", true).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(parse_documents("", "d", false).error().code, ErrorCode::kInvalidArgument);
}

TEST(Windows, EveryTokenBehindThePromptIsScoredOnceWithEnoughBeforeIt) {
  for (int64_t trial = 0; trial < 120; ++trial) {
    const int64_t length = trial % 40, first_scored = 1 + trial / 40 * 7;
    for (const WindowOptions options : {WindowOptions{2, 0}, WindowOptions{2, 1}, WindowOptions{8, 0},
                                        WindowOptions{8, 1}, WindowOptions{8, 5}, WindowOptions{64, 3}}) {
      std::vector<int32_t> ids(static_cast<size_t>(length));
      std::iota(ids.begin(), ids.end(), 0);  // an id is its own position
      std::vector<TokenWindow> windows;
      cut_windows(ids, first_scored, 3, options, windows);
      const int64_t stride = options.stride > 0 ? options.stride : options.context - 1;
      auto next = static_cast<int32_t>(first_scored);
      for (const TokenWindow& window : windows) {
        EXPECT_EQ(window.document, 3);
        EXPECT_LE(window.num_tokens(), options.context);
        for (int64_t i = window.first_scored; i < window.num_tokens(); ++i) {
          EXPECT_EQ(window.ids[static_cast<size_t>(i)], next++);
          EXPECT_GE(i, std::min<int64_t>(next - 1, options.context - stride));
        }
      }
      EXPECT_EQ(next, std::max(length, first_scored)) << options.context << " " << options.stride;
    }
  }
}

std::vector<TokenWindow> random_windows(uint32_t seed, size_t count, int64_t longest) {
  std::mt19937 random(seed);
  std::vector<TokenWindow> windows;
  for (size_t i = 0; i < count; ++i) {
    TokenWindow window = {.document = static_cast<int64_t>(i)};
    const int64_t length = 2 + static_cast<int64_t>(random()) % (longest - 1);
    for (int64_t t = 0; t < length; ++t) window.ids.push_back(static_cast<int32_t>(random() % 90));
    window.first_scored = 1 + static_cast<int64_t>(random()) % (length - 1);
    windows.push_back(std::move(window));
  }
  return windows;
}

TEST(Windows, LimitCutsTheLastWindow) {
  std::vector<TokenWindow> windows(3, {.ids = {1, 2, 3, 4}});
  limit_tokens(windows, 6);
  EXPECT_EQ(windows.size(), 2u);
  EXPECT_EQ(count_tokens(windows), 6);
  EXPECT_EQ(count_scored_tokens(windows), 4);
  limit_tokens(windows, 5);  // one token of the second: nothing to score in it
  EXPECT_EQ(windows.size(), 1u);
  limit_tokens(windows, 0);
  EXPECT_EQ(count_tokens(windows), 4);
}

// The fake model refuses a step that breaks the contract, and its logits depend on all earlier tokens and positions.
// The engine's oracle gives log-probabilities of a prompt's tokens, computed one by one.
TEST(WindowRunner, ScoresEqualTheOraclesHoweverStepsAreCut) {
  const std::vector<TokenWindow> windows = random_windows(1, 60, 700);
  for (const RunnerLimits limits : {RunnerLimits{512, 0}, RunnerLimits{16, 3}, RunnerLimits{300, 300}}) {
    auto runner =
        WindowRunner::create(std::make_unique<FakeModel>(std::make_shared<FakeModelState>()), windows, limits);
    ASSERT_TRUE(runner) << runner.error().message;
    std::vector<std::vector<double>> found(windows.size());
    while (!runner->done()) {
      const Status stepped = runner->step();
      ASSERT_TRUE(stepped) << stepped.error().message;
      EXPECT_LE(runner->num_step_tokens(), limits.max_step_tokens);
      for (size_t row = 0; row < runner->rows().size(); ++row) {
        const ScoredRow& scored = runner->rows()[row];
        const TokenWindow& window = windows[static_cast<size_t>(scored.window)];
        EXPECT_EQ(scored.token_id, window.ids[static_cast<size_t>(scored.position)]);
        EXPECT_EQ(scored.position - window.first_scored,
                  static_cast<int64_t>(found[static_cast<size_t>(scored.window)].size()));
        found[static_cast<size_t>(scored.window)].push_back(
            negative_log_likelihood(runner->logits(row), runner->vocab_size(), scored.token_id));
      }
    }
    for (size_t i = 0; i < windows.size(); ++i) {
      ASSERT_EQ(static_cast<int64_t>(found[i].size()), windows[i].num_scored());
      Request request = {.prompt_ids = windows[i].ids};
      request.sampling.num_prompt_logprobs = 0;
      request.sampling.max_tokens = 1;
      EngineOptions options;
      options.max_model_len = 1024;
      const auto oracle = testing::oracle_answer(request, options);
      for (size_t t = 0; t < found[i].size(); ++t) {
        const auto& logprob = oracle.prompt_tokens.at(static_cast<size_t>(windows[i].first_scored) + t).logprob;
        // FP32 log-softmax over 97 terms of magnitude below 9: 1e-5 covers its rounding.
        EXPECT_NEAR(found[i][t], -logprob->logprob, 1e-5);
      }
    }
  }
}

TEST(Perplexity, MeansAndErrorsOverTokens) {
  const std::vector<TokenWindow> windows = random_windows(2, 5, 30);
  std::vector<double> nlls;
  auto runner = WindowRunner::create(std::make_unique<FakeModel>(std::make_shared<FakeModelState>()), windows);
  while (!runner->done()) {
    ASSERT_TRUE(runner->step());
    for (size_t row = 0; row < runner->rows().size(); ++row) {
      nlls.push_back(negative_log_likelihood(runner->logits(row), 97, runner->rows()[row].token_id));
    }
  }
  const auto report =
      measure_perplexity(std::make_unique<FakeModel>(std::make_shared<FakeModelState>()), windows, 1000);
  ASSERT_TRUE(report) << report.error().message;
  const auto n = static_cast<double>(nlls.size());
  const double mean = std::accumulate(nlls.begin(), nlls.end(), 0.0) / n;
  double squares = 0;
  for (const double nll : nlls) squares += (nll - mean) * (nll - mean);
  EXPECT_EQ(report->num_tokens, static_cast<int64_t>(nlls.size()));
  EXPECT_NEAR(report->nll, mean, 1e-12);
  EXPECT_NEAR(report->nll_stderr, std::sqrt(squares / (n - 1) / n), 1e-9);
  EXPECT_NEAR(report->perplexity(), std::exp(mean), 1e-9);
  EXPECT_NEAR(report->bits_per_byte(), n * mean / std::log(2.0) / 1000, 1e-12);
}

TEST(Perplexity, NothingToScoreAndBrokenModelsAreErrors) {
  const auto state = std::make_shared<FakeModelState>();
  const auto none = measure_perplexity(std::make_unique<FakeModel>(state), {}, 0);
  EXPECT_THAT(none.error().message, HasSubstr("no token to score"));
  TokenWindow nan_window;
  nan_window.ids.assign(20, testing::kNanToken);
  EXPECT_EQ(measure_perplexity(std::make_unique<FakeModel>(state), {nan_window}, 20).error().code,
            ErrorCode::kInternal);
  state->num_failures_to_come = 1;
  EXPECT_THAT(measure_perplexity(std::make_unique<FakeModel>(state), {{.ids = {1, 2}}}, 2).error().message,
              HasSubstr("injected failure"));
}

TEST(RowDivergence, IsTheKullbackLeiblerDivergence) {
  // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4) with any constant added to the logits: ln(2) / 4.
  const float p[] = {std::log(2.0F) + 5, 5, 5}, q[] = {-100, std::log(2.0F) - 100, -100};
  const RowDivergence result = row_divergence(p, q, 3);
  EXPECT_NEAR(result.kl, std::log(2.0) / 4, 1e-5);  // -100 + ln 2 is rounded to 2^-17
  EXPECT_FALSE(result.same_top);
  EXPECT_EQ(row_divergence(p, p, 3).kl, 0);
  EXPECT_TRUE(row_divergence(p, p, 3).same_top);
  const float bad[] = {NAN, 0, 0};
  EXPECT_FALSE(std::isfinite(row_divergence(p, bad, 3).kl));
}

// Shows a stream of its own: `noise` on top of the reference's constant 2 in layer 1, none in layer 0.
class NoisyModel final : public ForwardModel {
 public:
  NoisyModel(ForwardObserver observer, float noise) : observer_(std::move(observer)), noise_(noise) {}
  int64_t vocab_size() const override { return inner_.vocab_size(); }
  int64_t max_position_embeddings() const override { return 1024; }
  int64_t kv_bytes_per_token() const override { return 1; }
  Status allocate_kv(int64_t a, int64_t b, int64_t c) override { return inner_.allocate_kv(a, b, c); }
  const StepProfile& profile() const override { return inner_.profile(); }
  void fill_kv(uint64_t) override {}
  PartialLogits partial_logits(int64_t) const override { return {}; }
  Status forward(const StepInput& input, float* logits) override {
    HADAL_RETURN_IF_ERROR(inner_.forward(input, logits));
    const auto num_tokens = static_cast<int64_t>(input.token_ids.size());
    std::vector<float> stream(static_cast<size_t>(num_tokens * 4), 2);
    observer_("residual", 0, {stream.data(), DType::kF32, {num_tokens, 4}});
    for (float& value : stream) value += noise_;
    observer_("residual", 1, {stream.data(), DType::kF32, {num_tokens, 4}});
    observer_("router.weights", 1, {stream.data(), DType::kF32, {num_tokens, 4}});
    for (size_t row = 0; row < input.logit_rows.size(); ++row) logits[row * 97] += noise_;
    return {};
  }

 private:
  FakeModel inner_{std::make_shared<FakeModelState>()};
  const ForwardObserver observer_;
  const float noise_;
};

ModelFactory noisy(float noise) {
  return [noise](ForwardObserver observer) -> Expected<std::unique_ptr<ForwardModel>> {
    return std::make_unique<NoisyModel>(std::move(observer), noise);
  };
}

constexpr DivergenceShape kNoisyShape = {.num_layers = 2, .hidden_size = 4, .vocab_size = 97};

TEST(Divergence, SideBySideAndRecordedGiveTheSame) {
  const std::vector<TokenWindow> windows = random_windows(3, 30, 100);
  const auto together = measure_divergence(noisy(0), noisy(0.02F), kNoisyShape, windows);
  const auto recording = record_reference(noisy(0), kNoisyShape, windows, 1 << 30);
  ASSERT_TRUE(together && recording);
  const auto recorded = measure_divergence(*recording, noisy(0.02F));
  ASSERT_TRUE(recorded);
  EXPECT_EQ(together->num_tokens, count_scored_tokens(windows));
  EXPECT_EQ(together->mean_kl, recorded->mean_kl);
  EXPECT_EQ(together->num_same_top, recorded->num_same_top);
  EXPECT_GT(together->mean_kl, 0);
  EXPECT_GE(together->max_kl, together->mean_kl);
  ASSERT_EQ(together->layers.size(), 2u);
  EXPECT_TRUE(std::isinf(together->layers[0].sqnr_db));
  EXPECT_NEAR(together->layers[1].sqnr_db, 40, 1e-3);  // 20 log10(2 / 0.02), 2.02F rounded to 2^-23
  EXPECT_EQ(recorded->layers[1].sqnr_db, together->layers[1].sqnr_db);
  // The recording serves any number of profiles.
  EXPECT_EQ(measure_divergence(*recording, noisy(0))->max_kl, 0);
}

TEST(Divergence, EqualModelsDivergeNowhere) {
  const auto report = measure_divergence(noisy(0), noisy(0), kNoisyShape, random_windows(3, 30, 100));
  ASSERT_TRUE(report);
  EXPECT_EQ(report->max_kl, 0);
  EXPECT_EQ(report->num_same_top, report->num_tokens);
  EXPECT_EQ(report->reference_nll, report->profile_nll);
}

TEST(Divergence, WhatCannotBeKeptIsRefusedWithTheArithmetic) {
  const std::vector<TokenWindow> windows = {{.ids = std::vector<int32_t>(100, 1)}};
  const uint64_t exact = 100 * (97 + 2 * 4) * 4;
  EXPECT_TRUE(record_reference(noisy(0), kNoisyShape, windows, exact));
  const auto refused = record_reference(noisy(0), kNoisyShape, windows, exact - 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(refused.error().message, HasSubstr("100 x (97 logits + 2 layers x 4) x 4 bytes"));
  EXPECT_THAT(refused.error().message, HasSubstr("--max-tokens 99 or less"));
  EXPECT_EQ(record_reference(noisy(0), kNoisyShape, {}, exact).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace hadal
