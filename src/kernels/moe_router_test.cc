#include "kernels/moe_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

namespace hadal {
namespace {

using ::testing::ElementsAre;

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

Routed route(const RouterConfig& config, const std::vector<float>& logits, std::vector<float> bias = {}) {
  bias.resize(logits.size(), 0.0f);
  Routed r{std::vector<int32_t>(config.num_experts_per_tok), std::vector<float>(config.num_experts_per_tok)};
  route_token(config, logits.data(), bias.data(), r.ids.data(), r.weights.data());
  return r;
}

// The definition, by full sorts, in double where that cannot change an order of distinct floats.
Routed route_by_sorting(const RouterConfig& c, const std::vector<float>& logits, const std::vector<float>& bias) {
  const int64_t size = c.n_routed_experts / c.n_group;
  std::vector<float> score(logits.size()), choice(logits.size());
  for (size_t e = 0; e < logits.size(); ++e) {
    score[e] = 1.0f / (1.0f + std::exp(-logits[e]));
    choice[e] = score[e] + bias[e];
  }
  const auto best_first = [](std::vector<int64_t> ids, const std::vector<float>& of) {
    std::stable_sort(ids.begin(), ids.end(), [&](int64_t a, int64_t b) { return of[a] > of[b]; });
    return ids;
  };
  std::vector<float> group_scores;
  for (int64_t g = 0; g < c.n_group; ++g) {
    std::vector<float> group(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(group.rbegin(), group.rend());
    group_scores.push_back(size == 1 ? group[0] : group[0] + group[1]);
  }
  std::vector<int64_t> groups(c.n_group);
  std::iota(groups.begin(), groups.end(), 0);
  groups = best_first(groups, group_scores);
  std::vector<int64_t> candidates;
  for (int64_t e = 0; e < c.n_routed_experts; ++e) {
    if (std::find(groups.begin(), groups.begin() + c.topk_group, e / size) != groups.begin() + c.topk_group) {
      candidates.push_back(e);
    }
  }
  candidates = best_first(candidates, choice);
  candidates.resize(c.num_experts_per_tok);
  std::sort(candidates.begin(), candidates.end());
  Routed r;
  double sum = 0;
  for (int64_t e : candidates) sum += score[e];
  for (int64_t e : candidates) {
    r.ids.push_back(static_cast<int32_t>(e));
    const double norm = c.norm_topk_prob && c.num_experts_per_tok > 1 ? sum + 1e-20 : 1;
    r.weights.push_back(static_cast<float>(score[e] / norm * c.routed_scaling_factor));
  }
  return r;
}

TEST(MoeRouter, AgreesWithTheDefinition) {
  std::mt19937 random(51);
  std::normal_distribution<float> normal;
  for (const RouterConfig& c : {RouterConfig{256, 8, 8, 4, true, 2.5f}, RouterConfig{384, 8, 1, 1, true, 2.827f},
                                RouterConfig{64, 6, 1, 1, true, 2.446f}, RouterConfig{16, 4, 4, 2, false, 1.0f},
                                RouterConfig{8, 2, 8, 3, true, 1.0f}, RouterConfig{6, 1, 3, 1, true, 2.0f}}) {
    for (int trial = 0; trial < 50; ++trial) {
      std::vector<float> logits(c.n_routed_experts), bias(c.n_routed_experts);
      // Coarse values, so that ties occur among experts and among groups.
      for (float& v : logits) v = std::round(normal(random) * (trial % 2 ? 2 : 100)) / (trial % 2 ? 2 : 100);
      for (float& v : bias) v = trial % 3 ? 0.1f * normal(random) : 0.0f;
      const Routed want = route_by_sorting(c, logits, bias), got = route(c, logits, bias);
      ASSERT_EQ(got.ids, want.ids) << "experts " << c.n_routed_experts << " trial " << trial;
      for (size_t i = 0; i < want.weights.size(); ++i) ASSERT_NEAR(got.weights[i], want.weights[i], 1e-6);
    }
  }
}

TEST(MoeRouter, LowerIndexWinsTies) {
  EXPECT_THAT(route({8, 3}, std::vector<float>(8, 0.5f)).ids, ElementsAre(0, 1, 2));
  EXPECT_THAT(route({8, 3, 4, 2}, std::vector<float>(8, 0.5f)).ids, ElementsAre(0, 1, 2));
  // Groups {0,1} and {4,5} tie for the second place after {6,7}.
  EXPECT_THAT(route({8, 4, 4, 2}, {1, 1, 0, 0, 1, 1, 2, 2}).ids, ElementsAre(0, 1, 6, 7));
}

TEST(MoeRouter, BiasSelectsButDoesNotWeigh) {
  const Routed r = route({4, 2, 1, 1, false, 3.0f}, {0, 0, 0, 1}, {0, 5, 4, 0});
  EXPECT_THAT(r.ids, ElementsAre(1, 2));
  EXPECT_THAT(r.weights, ElementsAre(1.5f, 1.5f));  // sigmoid(0) * 3
}

TEST(MoeRouter, NegativeChoicesOfKeptGroupsBeatDroppedOnes) {
  // Group {0,1} is kept by its sum; its second expert has a negative choice, yet stands before any dropped expert.
  EXPECT_THAT(route({4, 2, 2, 1}, {0, 0, 0, 0}, {9, -2, 1, 1}).ids, ElementsAre(0, 1));
}

TEST(MoeRouter, OneExpertKeepsItsScore) {
  const Routed r = route({3, 1, 1, 1, true, 2.0f}, {0, 2, 1});
  EXPECT_THAT(r.ids, ElementsAre(1));
  EXPECT_FLOAT_EQ(r.weights[0], 2.0f / (1.0f + std::exp(-2.0f)));
}

TEST(MoeRouter, NaNStillGivesDistinctExperts) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Routed r = route({16, 4, 4, 2}, std::vector<float>(16, nan));
  EXPECT_EQ(std::set<int32_t>(r.ids.begin(), r.ids.end()).size(), 4u);
  EXPECT_TRUE(std::is_sorted(r.ids.begin(), r.ids.end()));
  EXPECT_GE(r.ids.front(), 0);
  EXPECT_LT(r.ids.back(), 16);
}

}  // namespace
}  // namespace hadal
