#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>

#include "engine/random.h"

namespace hadal {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct SampleCase {
  SamplingParams params;
  std::vector<int32_t> prompt;
  std::vector<int32_t> generated;
  std::vector<int32_t> eos;
  TokenConstraint* constraint = nullptr;
  int64_t num_valid = 0;
};

Expected<TokenOutput> sample_with(const SampleCase& setup, std::vector<float> logits, uint64_t position = 0,
                                  std::vector<float>* after = nullptr) {
  Sampler sampler(static_cast<int64_t>(logits.size()), setup.num_valid);
  TokenCounts counts(setup.params, setup.prompt);
  for (const int32_t id : setup.generated) counts.add_generated(id);
  const SampleContext context{.rules = {.params = &setup.params,
                                        .constraint = setup.constraint,
                                        .counts = &counts,
                                        .generated = setup.generated,
                                        .eos_token_ids = setup.eos},
                              .seed = setup.params.seed.value_or(0),
                              .position = position};
  TokenOutput out;
  if (Status status = sampler.sample(logits.data(), context, out); !status) return forward_error(std::move(status));
  if (after) *after = logits;
  return out;
}

SamplingParams greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

std::vector<float> random_logits(int64_t size, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(generator);
  return logits;
}

// The distribution that the parameters define, in double, by the book: sorts and sums everything.
std::vector<double> oracle_distribution(const std::vector<float>& logits, const SamplingParams& params) {
  const size_t size = logits.size();
  std::vector<double> scaled(size), probs(size);
  for (size_t i = 0; i < size; ++i) scaled[i] = double{logits[i]} / params.temperature;
  const double max = *std::max_element(scaled.begin(), scaled.end());
  const auto normalise = [&](const std::vector<bool>& keep) {
    double sum = 0;
    for (size_t i = 0; i < size; ++i) sum += probs[i] = keep[i] ? std::exp(scaled[i] - max) : 0;
    for (double& p : probs) p /= sum;
  };
  std::vector<bool> keep(size, true);
  normalise(keep);
  const double floor = params.min_p * *std::max_element(probs.begin(), probs.end());
  for (size_t i = 0; i < size; ++i) keep[i] = probs[i] >= floor;
  if (params.top_k > 0 && params.top_k < static_cast<int32_t>(size)) {
    std::vector<double> sorted = scaled;
    std::sort(sorted.rbegin(), sorted.rend());
    for (size_t i = 0; i < size; ++i) keep[i] = keep[i] && scaled[i] >= sorted[params.top_k - 1];
  }
  normalise(keep);
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return probs[a] > probs[b]; });
  double mass = 0;
  for (const size_t i : order) {
    if (mass >= params.top_p) keep[i] = false;
    mass += probs[i];
  }
  normalise(keep);
  return probs;
}

TEST(Sampler, GreedyTakesTheLowestIdOfEqualMaxima) {
  std::vector<float> logits(300, -1);
  logits[299] = logits[130] = logits[17] = 2.5f;
  EXPECT_EQ(sample_with({.params = greedy()}, logits)->token_id, 17);
  SamplingParams almost = greedy();
  almost.temperature = 9e-6f;
  EXPECT_EQ(sample_with({.params = almost}, logits)->token_id, 17);
}

TEST(Sampler, BadLogitsAreAnErrorWhateverTheParameters) {
  for (const float bad : {kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    auto logits = random_logits(200, 1);
    logits[150] = bad;
    for (const float temperature : {0.0f, 0.7f}) {
      SampleCase setup;
      setup.params.temperature = temperature;
      setup.num_valid = 100;  // also where nobody would pick it
      const auto sampled = sample_with(setup, logits);
      ASSERT_FALSE(sampled);
      EXPECT_EQ(sampled.error().code, ErrorCode::kInternal);
    }
  }
}

TEST(Sampler, NeverPicksOrListsIdsWithoutAToken) {
  std::vector<float> logits(64, 0);
  logits[40] = 50;
  SampleCase setup{.params = greedy(), .num_valid = 40};
  setup.params.num_logprobs = 3;
  const auto out = sample_with(setup, logits);
  EXPECT_EQ(out->token_id, 0);
  EXPECT_EQ(out->logprob->rank, 1);
  for (const TokenLogprob& top : out->top_logprobs) EXPECT_LT(top.token_id, 40);
  EXPECT_NEAR(out->logprob->logprob, -50, 1e-4);  // the softmax knows them
}

// 40,000 draws of 24 tokens. Chi-square with d degrees of freedom exceeds d + 4 sqrt(2 d) + 8 with probability below
// 1e-5 (Laurent and Massart 2000, lemma 1: d + 2 sqrt(d x) + 2 x with x = 11.5); the seed is fixed.
void expect_distribution(const SamplingParams& params, const std::vector<float>& logits) {
  const std::vector<double> probs = oracle_distribution(logits, params);
  constexpr int kDraws = 40000;
  std::vector<int> counts(logits.size(), 0);
  for (int i = 0; i < kDraws; ++i) ++counts[sample_with({.params = params}, logits, i)->token_id];
  double chi_square = 0, rest = 0;
  int degrees = -1, rest_count = 0;
  for (size_t id = 0; id < probs.size(); ++id) {
    if (probs[id] == 0) {
      EXPECT_EQ(counts[id], 0) << "token " << id << " is filtered out";
    } else if (probs[id] * kDraws < 5) {
      rest += probs[id];
      rest_count += counts[id];
    } else {
      chi_square += std::pow(counts[id] - probs[id] * kDraws, 2) / (probs[id] * kDraws);
      ++degrees;
    }
  }
  if (rest * kDraws >= 5) {
    chi_square += std::pow(rest_count - rest * kDraws, 2) / (rest * kDraws);
    ++degrees;
  }
  const double d = std::max(degrees, 1);
  EXPECT_LT(chi_square, d + 2 * std::sqrt(d * 11.5) + 2 * 11.5);
}

struct DistributionCase {
  const char* what;
  float temperature;
  int32_t top_k;
  float top_p;
  float min_p;
};

TEST(Sampler, DrawsFromTheDistributionThatTheParametersDefine) {
  const DistributionCase cases[] = {
      {"plain", 1, 0, 1, 0},
      {"hot", 2.5f, 0, 1, 0},
      {"cold", 0.3f, 0, 1, 0},
      {"top-k", 1.5f, 5, 1, 0},
      {"top-p", 1.5f, 0, 0.8f, 0},
      {"min-p", 1.5f, 0, 1, 0.1f},
      {"top-k, p", 2, 8, 0.7f, 0},
      {"all", 2, 9, 0.9f, 0.05f},
      {"one token", 1, 1, 1, 0},
      {"k off", 1, -1, 1, 0},
      {"k beyond the row", 1, 99, 1, 0},
      {"tiny p", 1, 0, 1e-6f, 0},
  };
  const auto logits = random_logits(24, 7);
  for (const DistributionCase& c : cases) {
    SCOPED_TRACE(c.what);
    SamplingParams params;
    params.temperature = c.temperature;
    params.top_k = c.top_k;
    params.top_p = c.top_p;
    params.min_p = c.min_p;
    params.seed = 4242;
    expect_distribution(params, logits);
  }
}

TEST(Sampler, DrawsFromALargeVocabularyToo) {
  // Beyond one block of partial sums: each half of the ids has half of the mass.
  std::vector<float> logits(5000, 0.25f);
  std::map<bool, int> halves;
  SampleCase setup;
  for (int i = 0; i < 4000; ++i) ++halves[sample_with(setup, logits, i)->token_id < 2500];
  EXPECT_NEAR(halves[true], 2000, 4 * std::sqrt(1000.0));
}

TEST(Sampler, TopKKeepsAllTiesOfTheLast) {
  const std::vector<float> logits = {1, 3, 2, 2, 2, 0};
  SampleCase setup;
  setup.params.top_k = 2;
  std::set<int32_t> seen;
  for (int i = 0; i < 500; ++i) seen.insert(sample_with(setup, logits, i)->token_id);
  EXPECT_EQ(seen, (std::set<int32_t>{1, 2, 3, 4}));
}

TEST(Sampler, TopPIncludesTheCrossingTokenAndSeesTopKRenormalised) {
  // Probabilities 0.4, 0.3, 0.2, 0.1.
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  const auto support = [&](int32_t top_k, float top_p, float min_p) {
    SampleCase setup;
    setup.params.top_k = top_k;
    setup.params.top_p = top_p;
    setup.params.min_p = min_p;
    std::set<int32_t> seen;
    for (int i = 0; i < 600; ++i) seen.insert(sample_with(setup, logits, i)->token_id);
    return seen;
  };
  EXPECT_EQ(support(0, 0.65f, 0), (std::set<int32_t>{0, 1}));
  EXPECT_EQ(support(0, 0.75f, 0), (std::set<int32_t>{0, 1, 2}));
  // After top-k 2 the first has 4/7 = 0.571: enough for 0.55, which alone would have needed two.
  EXPECT_EQ(support(2, 0.55f, 0), (std::set<int32_t>{0}));
  // min-p runs first: 0.6 * 0.4 drops the last two, so that 0.55 is reached by the first.
  EXPECT_EQ(support(0, 0.55f, 0.6f), (std::set<int32_t>{0}));
}

TEST(Sampler, NucleusOfAFlatDistributionIsExact) {
  // All equal: top-p keeps ceil(p * n) tokens, the lowest ids.
  const std::vector<float> logits(1000, 1.5f);
  SampleCase setup;
  setup.params.top_p = 0.5f;
  int32_t highest = 0;
  for (int i = 0; i < 20000; ++i) highest = std::max(highest, sample_with(setup, logits, i)->token_id);
  EXPECT_EQ(highest, 499);
}

TEST(Sampler, NucleusIsTheSameHoweverDeepItLies) {
  // From a few tokens to nearly all of them, on rows whose mass lies at any depth below the maximum.
  for (const float temperature : {0.1f, 0.6f, 1.0f, 3.0f, 50.0f}) {
    for (const float top_p : {0.1f, 0.95f, 0.9999f}) {
      for (const float spike : {0.0f, 15.0f}) {
        auto logits = random_logits(3000, 12);
        logits[1234] += spike;
        SampleCase setup;
        setup.params.temperature = temperature;
        setup.params.top_p = top_p;
        const std::vector<double> probs = oracle_distribution(logits, setup.params);
        // Token by token along the inverse of the cumulative distribution: draws hit what the oracle says, but for
        // those so near to an edge that rounding decides.
        double begin = 0;
        std::vector<double> ends;
        for (const double p : probs) ends.push_back(begin += p);
        for (int position = 0; position < 300; ++position) {
          const int32_t id = sample_with(setup, logits, position)->token_id;
          const double noise = sampling_noise(0, 0, position);
          EXPECT_GT(probs[id], 0) << temperature << " " << top_p << " " << spike;
          EXPECT_LE(noise, ends[id] + 1e-3) << temperature << " " << top_p << " " << spike;
          EXPECT_GE(noise, ends[id] - probs[id] - 1e-3) << temperature << " " << top_p << " " << spike;
        }
      }
    }
  }
}

TEST(Sampler, NoiseDependsOnSeedAndPositionAlone) {
  const auto logits = random_logits(500, 3);
  SampleCase setup;
  setup.params.seed = 5;
  SampleCase other = setup;
  other.params.seed = 6;
  int num_different = 0;
  for (int i = 0; i < 50; ++i) {
    const int32_t token = sample_with(setup, logits, i)->token_id;
    EXPECT_EQ(sample_with(setup, logits, i)->token_id, token);
    num_different += sample_with(other, logits, i)->token_id != token;
  }
  EXPECT_GT(num_different, 25);
}

TEST(Sampler, PenaltiesEqualTheFormula) {
  SampleCase setup{.params = greedy(), .prompt = {1, 2, 3}, .generated = {3, 4, 4, 5}};
  setup.params.repetition_penalty = 1.5f;
  setup.params.frequency_penalty = 0.25f;
  setup.params.presence_penalty = 0.5f;
  const auto logits = random_logits(40, 11);
  std::vector<float> after;
  ASSERT_TRUE(sample_with(setup, logits, 0, &after));
  for (int32_t id = 0; id < 40; ++id) {
    const auto in_prompt = std::count(setup.prompt.begin(), setup.prompt.end(), id);
    const auto count = std::count(setup.generated.begin(), setup.generated.end(), id);
    float expected = logits[id];
    if (in_prompt + count > 0) expected = expected > 0 ? expected / 1.5f : expected * 1.5f;
    expected -= 0.25f * static_cast<float>(count);
    if (count > 0) expected -= 0.5f;
    EXPECT_EQ(after[id], expected) << id;
  }
}

TEST(Sampler, PromptTokensAreForgivenByPresenceAndFrequency) {
  SampleCase setup{.params = greedy(), .prompt = {0}};
  setup.params.presence_penalty = 2;
  setup.params.frequency_penalty = 2;
  EXPECT_EQ(sample_with(setup, {1.0f, 0.5f})->token_id, 0);
}

TEST(Sampler, BiasAllowedIdsAndBadWords) {
  const std::vector<float> logits = {5, 4, 3, 2, 1};
  SampleCase setup{.params = greedy()};
  setup.params.logit_bias = {{4, 10.0f}};
  EXPECT_EQ(sample_with(setup, logits)->token_id, 4);
  setup.params.allowed_token_ids = {3, 2};
  EXPECT_EQ(sample_with(setup, logits)->token_id, 2);
  setup.params.logit_bias = {{4, 10.0f}, {3, 1.5f}};  // a bias does not lift a ban
  EXPECT_EQ(sample_with(setup, logits)->token_id, 3);

  SampleCase words{.params = greedy(), .generated = {7, 2}};
  words.params.bad_words_token_ids = {{0}, {2, 1}, {3, 2}};  // 3 2 is not under way
  EXPECT_EQ(sample_with(words, logits)->token_id, 2);
  words.params.bad_words_token_ids.push_back({7, 2, 2});
  EXPECT_EQ(sample_with(words, logits)->token_id, 3);
}

TEST(Sampler, NoStopTokenBeforeMinTokens) {
  const std::vector<float> logits = {5, 4, 3};
  SampleCase setup{.params = greedy(), .generated = {2}, .eos = {0}};
  setup.params.stop_token_ids = {1};
  setup.params.min_tokens = 2;
  EXPECT_EQ(sample_with(setup, logits)->token_id, 2);
  setup.params.ignore_eos = true;  // then it is a token like others
  EXPECT_EQ(sample_with(setup, logits)->token_id, 0);
  setup.params.ignore_eos = false;
  setup.generated = {2, 2};
  EXPECT_EQ(sample_with(setup, logits)->token_id, 0);
}

TEST(Sampler, ForbiddingEverythingIsAnError) {
  SampleCase setup{.params = greedy()};
  setup.params.bad_words_token_ids = {{0}, {1}};
  const auto sampled = sample_with(setup, {1, 2});
  ASSERT_FALSE(sampled);
  EXPECT_EQ(sampled.error().code, ErrorCode::kInvalidArgument);
}

class OnlyEven final : public TokenConstraint {
 public:
  void apply(float* logits, int64_t vocab_size) override {
    if (throws) throw std::runtime_error("no mask");
    for (int64_t id = 1; id < vocab_size; id += 2) logits[id] = -kInfinity;
  }
  void accept(int32_t) override {}
  bool throws = false;
};

TEST(Sampler, ConstraintMasksAndItsExceptionIsAnError) {
  OnlyEven constraint;
  SampleCase setup{.params = greedy(), .constraint = &constraint};
  setup.params.num_logprobs = 1;
  const auto out = sample_with(setup, {1, 5, 2, 4});
  EXPECT_EQ(out->token_id, 2);
  EXPECT_EQ(out->logprob->rank, 3);  // of the raw distribution
  EXPECT_EQ(out->top_logprobs[0].token_id, 1);
  constraint.throws = true;
  EXPECT_FALSE(sample_with(setup, {1, 5, 2, 4}));
}

// A grammar that must end: token 3 only.
class OnlyThree final : public TokenConstraint {
 public:
  void apply(float* logits, int64_t vocab_size) override {
    for (int64_t id = 0; id < vocab_size; ++id) {
      if (id != 3) logits[id] = -kInfinity;
    }
  }
  void accept(int32_t) override {}
};

TEST(Sampler, AConstraintIsNeverLeftWithoutAToken) {
  OnlyThree constraint;
  const std::vector<float> logits = {1, 5, 2, 4};
  SampleCase setup{.params = greedy(), .constraint = &constraint};
  setup.params.stop_token_ids = {3};
  setup.params.min_tokens = 5;
  EXPECT_EQ(sample_with(setup, logits)->token_id, 3);
  setup.params.min_tokens = 0;
  setup.params.allowed_token_ids = {1, 2};
  EXPECT_EQ(sample_with(setup, logits)->token_id, 3);
  setup.params.allowed_token_ids = {};
  setup.params.bad_words_token_ids = {{3}};
  setup.params.logit_bias = {{3, -100.0f}, {1, 100.0f}};
  EXPECT_EQ(sample_with(setup, logits)->token_id, 3);
  // Where both leave something, both hold.
  OnlyEven even;
  setup = {.params = greedy(), .constraint = &even};
  setup.params.allowed_token_ids = {0, 1, 3};
  EXPECT_EQ(sample_with(setup, logits)->token_id, 0);
}

TEST(Sampler, ProcessedLogprobsAreOfTheDistributionThatIsDrawnFrom) {
  const auto logits = random_logits(300, 4);
  struct Row {
    float temperature, top_p, min_p;
    int32_t top_k;
  };
  for (const Row& row : {Row{0.7F, 1, 0, 0}, Row{2, 0.8F, 0, 0}, Row{1, 1, 0, 5}, Row{1.5F, 0.9F, 0.01F, 50}}) {
    SampleCase setup;
    setup.params.temperature = row.temperature;
    setup.params.top_p = row.top_p;
    setup.params.min_p = row.min_p;
    setup.params.top_k = row.top_k;
    setup.params.num_logprobs = 20;
    setup.params.processed_logprobs = true;
    const std::vector<double> expected = oracle_distribution(logits, setup.params);
    const auto num_possible = std::count_if(expected.begin(), expected.end(), [](double p) { return p > 0; });
    for (int position = 0; position < 20; ++position) {
      const auto out = sample_with(setup, logits, position);
      ASSERT_TRUE(out.has_value());
      // As for the raw ones; probabilities of candidates are floats of relative error 2^-22.
      EXPECT_NEAR(out->logprob->logprob, std::log(expected[out->token_id]), 0x1p-17);
      ASSERT_EQ(out->top_logprobs.size(), static_cast<size_t>(std::min<int64_t>(20, num_possible)));
      for (const TokenLogprob& top : out->top_logprobs) {
        EXPECT_NEAR(top.logprob, std::log(expected[top.token_id]), 0x1p-17);
        if (top.token_id == out->token_id) {
          EXPECT_EQ(top.logprob, out->logprob->logprob);
        }
      }
    }
  }
  // Greedy: after the rules, at temperature 1.
  SampleCase setup{.params = greedy()};
  setup.params.allowed_token_ids = {0, 1};
  setup.params.num_logprobs = 3;
  setup.params.processed_logprobs = true;
  const auto out = sample_with(setup, {1, 2, 9, 9});
  EXPECT_EQ(out->token_id, 1);
  EXPECT_NEAR(out->logprob->logprob, -std::log1p(std::exp(-1.0)), 0x1p-17);
  EXPECT_EQ(out->top_logprobs.size(), 2u);
}

TEST(Sampler, LogprobsAreTheRawLogSoftmax) {
  const auto logits = random_logits(5000, 21);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit});
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });

  SampleCase setup{.generated = {order[0]}};
  setup.params.temperature = 3;
  setup.params.presence_penalty = 1;
  setup.params.logit_bias = {{order[1], -50.0f}};
  setup.params.num_logprobs = 20;
  for (int position = 0; position < 50; ++position) {
    const auto out = sample_with(setup, logits, position);
    const auto exact = [&](int32_t id) { return double{logits[id]} - std::log(sum); };
    // A float near -20 has a last place of 2^-19; the sum is right to 2^-18 (logit_math_test).
    EXPECT_NEAR(out->logprob->logprob, exact(out->token_id), 0x1p-17);
    EXPECT_EQ(order[out->logprob->rank - 1], out->token_id);
    ASSERT_EQ(out->top_logprobs.size(), 20u);
    for (int i = 0; i < 20; ++i) {
      EXPECT_EQ(out->top_logprobs[i].token_id, order[i]);
      EXPECT_EQ(out->top_logprobs[i].rank, i + 1);
      EXPECT_NEAR(out->top_logprobs[i].logprob, exact(order[i]), 0x1p-17);
      if (order[i] == out->token_id) {
        EXPECT_EQ(out->top_logprobs[i].logprob, out->logprob->logprob);
      }
    }
  }
}

TEST(Sampler, RankOfTiesIsByIdAndUnique) {
  Sampler sampler(6, 0);
  const std::vector<float> logits = {1, 2, 1, 2, 0, 1};
  const int32_t expected[] = {3, 1, 4, 2, 6, 5};
  for (int32_t id = 0; id < 6; ++id) {
    TokenOutput out;
    ASSERT_TRUE(sampler.describe(logits.data(), id, 0, out));
    EXPECT_EQ(out.logprob->rank, expected[id]) << id;
    EXPECT_TRUE(out.top_logprobs.empty());
  }
}

}  // namespace
}  // namespace hadal
