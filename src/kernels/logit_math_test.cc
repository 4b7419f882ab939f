#include "kernels/logit_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "kernels/kernels.h"

namespace hadal {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();
constexpr int64_t kSizes[] = {1, 2, 15, 16, 17, 255, 256, 257, 511, 512, 513, 1000, 129280};

std::vector<float> random_logits(int64_t size, uint32_t seed, bool with_ties = false) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = with_ties ? std::round(normal(generator)) : normal(generator);
  return logits;
}

std::vector<Candidate> sorted(const std::vector<float>& logits) {
  std::vector<Candidate> all;
  for (size_t i = 0; i < logits.size(); ++i) all.push_back({logits[i], static_cast<int32_t>(i)});
  std::sort(all.begin(), all.end(), ranks_before);
  return all;
}

void expect_same(const std::vector<Candidate>& got, std::span<const Candidate> want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].token_id, want[i].token_id) << i;
    ASSERT_EQ(got[i].value, want[i].value) << i;
  }
}

// With the row passes of every instruction set here: what follows them must not care.
class LogitMath : public ::testing::TestWithParam<Isa> {
 protected:
  LogitBlocks blocks_{row_math_for(GetParam())};
};

TEST_P(LogitMath, FindsTheMaximumAndItsFirstPlace) {
  for (const int64_t size : kSizes) {
    auto logits = random_logits(size, 1);
    const auto max = std::max_element(logits.begin(), logits.end());
    for (const float exp_scale : {0.0f, 1.0f}) {
      ASSERT_TRUE(blocks_.scan(logits, exp_scale));
      EXPECT_EQ(blocks_.max(), *max) << size;
      EXPECT_EQ(blocks_.first_of_max(), max - logits.begin()) << size;
    }
  }
}

TEST_P(LogitMath, TiesAcrossBlocksGoToTheLowestId) {
  std::vector<float> logits(1000, -1);
  for (const int32_t id : {999, 512, 511, 300}) {
    logits[id] = 2.5f;
    ASSERT_TRUE(blocks_.scan(logits, 0));
    EXPECT_EQ(blocks_.first_of_max(), id);
  }
  std::vector<Candidate> out;
  blocks_.select_top(3, out);
  expect_same(out, std::vector<Candidate>{{2.5f, 300}, {2.5f, 511}, {2.5f, 512}});
  EXPECT_EQ(blocks_.count_better({2.5f, 512}), 2);
  EXPECT_EQ(blocks_.count_better({-1, 0}), 4);
}

TEST_P(LogitMath, RefusesOneBadValueAnywhere) {
  for (const float bad : {kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    for (int64_t where = 0; where < 300; ++where) {
      auto logits = random_logits(300, 2);
      logits[where] = bad;
      EXPECT_FALSE(blocks_.scan(logits, 0)) << where;
      EXPECT_FALSE(blocks_.scan(logits, 1)) << where;
    }
  }
}

TEST_P(LogitMath, AnEmptyRowWeighsNothing) {
  EXPECT_TRUE(blocks_.scan({}, 1));
  EXPECT_EQ(blocks_.max(), -kInfinity);
  EXPECT_EQ(blocks_.exp_sum(3), 0);
}

TEST_P(LogitMath, SumsAgreeWithDouble) {
  for (const int64_t size : kSizes) {
    const auto logits = random_logits(size, 3);
    ASSERT_TRUE(blocks_.scan(logits, 0.5f));
    for (const float above : {0.0f, 20.0f}) {
      const double max = blocks_.max() + above;
      double exact = 0;
      for (const float logit : logits) exact += std::exp((logit - max) * 0.5);
      // A term is wrong by 2^-22 (1 + |z|) twice, for its block's maximum and below it; z of the terms that count is at
      // most 20. The block's additions round 36 times by 2^-24.
      EXPECT_NEAR(blocks_.exp_sum(static_cast<float>(max)), exact, exact * (2 * 21 * 0x1p-22 + 36 * 0x1p-24)) << size;
    }
  }
}

TEST_P(LogitMath, SelectTopEqualsAFullSort) {
  for (const int64_t size : kSizes) {
    for (const bool with_ties : {false, true}) {
      const auto logits = random_logits(size, 4, with_ties);
      const auto all = sorted(logits);
      ASSERT_TRUE(blocks_.scan(logits, 0));
      for (const int64_t k : {0, 1, 5, 20, 256, 505, 506, 5000}) {
        SCOPED_TRACE(testing::Message() << size << " " << k);
        std::vector<Candidate> top;
        blocks_.select_top(k, top);
        expect_same(top, std::span(all).first(std::min(k, size)));
      }
    }
  }
}

TEST_P(LogitMath, SelectTopOfBlocksThatAreNotAlike) {
  // All the best in one block: the k-th largest maximum is far below the k-th largest logit, and with more asked for
  // than there are blocks the smallest maximum is above it.
  std::vector<float> logits(2000, -5);
  for (int32_t i = 0; i < 200; ++i) logits[512 + i] = static_cast<float>(i % 50);
  logits[1999] = logits[0] = logits[300] = logits[800] = logits[1100] = logits[1300] = logits[1600] = -4;
  const auto all = sorted(logits);
  ASSERT_TRUE(blocks_.scan(logits, 0));
  for (const int64_t k : {1, 2, 7, 8, 9, 100, 207, 208, 1999, 2000, 2001}) {
    SCOPED_TRACE(k);
    std::vector<Candidate> top;
    blocks_.select_top(k, top);
    expect_same(top, std::span(all).first(std::min<int64_t>(k, 2000)));
  }
}

TEST_P(LogitMath, ForbiddenTokensAreNeverSelectedOrDrawn) {
  for (const int64_t allowed : {0, 255, 256, 700, 999}) {
    std::vector<float> logits(1000, -kInfinity);
    logits[allowed] = -3;
    ASSERT_TRUE(blocks_.scan(logits, 1));
    EXPECT_EQ(blocks_.first_of_max(), allowed);
    EXPECT_EQ(blocks_.exp_sum(-3), 1);
    for (const double noise : {0.0, 0.5, 1 - 0x1p-53}) EXPECT_EQ(blocks_.draw(noise), allowed);
    std::vector<Candidate> out;
    blocks_.select_top(10, out);
    expect_same(out, std::vector<Candidate>{{-3, static_cast<int32_t>(allowed)}});
    blocks_.select_at_least(kLowest, out);
    expect_same(out, std::vector<Candidate>{{-3, static_cast<int32_t>(allowed)}});
  }
}

TEST_P(LogitMath, SelectAtLeastKeepsTheOrderOfIds) {
  for (const int64_t size : kSizes) {
    const auto logits = random_logits(size, 5, true);
    ASSERT_TRUE(blocks_.scan(logits, 0));
    for (const float threshold : {-100.0f, 0.0f, 7.0f, 100.0f}) {
      std::vector<Candidate> want, out;
      for (int32_t i = 0; i < size; ++i) {
        if (logits[i] >= threshold) want.push_back({logits[i], i});
      }
      blocks_.select_at_least(threshold, out);
      expect_same(out, want);
    }
  }
}

TEST_P(LogitMath, CountBetterEqualsTheRankInASort) {
  for (const int64_t size : {1, 17, 256, 257, 1000}) {
    const auto logits = random_logits(size, 6, true);
    const auto all = sorted(logits);
    ASSERT_TRUE(blocks_.scan(logits, 0));
    for (int64_t rank = 0; rank < size; ++rank) ASSERT_EQ(blocks_.count_better(all[rank]), rank) << size;
    // A token beyond the row.
    EXPECT_EQ(blocks_.count_better({-1000, static_cast<int32_t>(size)}), size);
    EXPECT_EQ(blocks_.count_better({logits[0], static_cast<int32_t>(size) + 300}),
              std::count_if(logits.begin(), logits.end(), [&](float logit) { return logit >= logits[0]; }));
  }
}

TEST_P(LogitMath, DrawInvertsTheCumulativeDistribution) {
  for (const int64_t size : {1, 255, 256, 257, 1000}) {
    const auto logits = random_logits(size, 7);
    ASSERT_TRUE(blocks_.scan(logits, 0.25f));
    std::vector<double> cumulative;
    double sum = 0;
    for (const float logit : logits) cumulative.push_back(sum += std::exp(double{logit} * 0.25));
    // In the middle of each token's share, which is wider than what the sums may be wrong by (2^-16 of all).
    for (int64_t id = 0; id < size; ++id) {
      const double begin = id > 0 ? cumulative[id - 1] : 0, share = (cumulative[id] - begin) / sum;
      if (share < 0x1p-14) continue;
      ASSERT_EQ(blocks_.draw((begin / sum) + share / 2), id) << size;
    }
    EXPECT_LT(blocks_.draw(1 - 0x1p-53), size);
  }
}

TEST_P(LogitMath, DrawsEachOfEqualTokensAtItsShare) {
  // Sums of equal logits are exact: token i begins at i / size, also where blocks meet.
  constexpr int64_t kSize = 1024;
  const std::vector<float> logits(kSize, 0.3f);
  ASSERT_TRUE(blocks_.scan(logits, 2));
  for (int64_t id = 0; id < kSize; ++id) {
    ASSERT_EQ(blocks_.draw(static_cast<double>(id) / kSize), id);
    ASSERT_EQ(blocks_.draw((static_cast<double>(id) + 1) / kSize - 0x1p-53), id);
  }
}

TEST(Nucleus, KeepsTheFewestThatReachTheMass) {
  const std::vector<Candidate> all = {{1, 3}, {4, 5}, {2, 9}, {2, 11}, {1, 20}};  // 10 together
  std::vector<Candidate> scratch;
  const auto kept = [&](double mass) {
    auto candidates = all;
    keep_nucleus(candidates, mass, scratch);
    std::vector<int32_t> ids;
    for (const Candidate& candidate : candidates) ids.push_back(candidate.token_id);
    return ids;
  };
  EXPECT_EQ(kept(1e-9), (std::vector<int32_t>{5}));
  EXPECT_EQ(kept(4), (std::vector<int32_t>{5}));
  EXPECT_EQ(kept(4.5), (std::vector<int32_t>{5, 9}));
  EXPECT_EQ(kept(8), (std::vector<int32_t>{5, 9, 11}));
  EXPECT_EQ(kept(8.5), (std::vector<int32_t>{3, 5, 9, 11}));
  EXPECT_EQ(kept(99), (std::vector<int32_t>{3, 5, 9, 11, 20}));
}

INSTANTIATE_TEST_SUITE_P(Tables, LogitMath, ::testing::ValuesIn(available_isas()), [](const auto& info) {
  std::string name = isa_name(info.param);
  std::erase(name, '-');
  return name;
});

}  // namespace
}  // namespace hadal
