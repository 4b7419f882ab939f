#include "engine/logit_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace hadal {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kSizes[] = {1, 2, 15, 16, 17, 255, 256, 257, 1000, 129280};

std::vector<float> random_logits(int64_t size, uint32_t seed, bool with_ties = false) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = with_ties ? std::round(normal(generator)) : normal(generator);
  return logits;
}

TEST(LogitMath, ScanFindsTheMaximumAnywhere) {
  for (const int64_t size : kSizes) {
    const auto logits = random_logits(size, 1);
    const LogitScan scan = scan_logits(logits);
    EXPECT_TRUE(scan.is_valid);
    EXPECT_EQ(scan.max, *std::max_element(logits.begin(), logits.end())) << size;
  }
}

TEST(LogitMath, ScanFindsOneBadValueAnywhere) {
  for (const float bad : {kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    for (int64_t where = 0; where < 40; ++where) {
      auto logits = random_logits(40, 2);
      logits[where] = bad;
      EXPECT_FALSE(scan_logits(logits).is_valid) << where;
    }
  }
  auto logits = random_logits(40, 2);
  logits[7] = -kInfinity;
  EXPECT_TRUE(scan_logits(logits).is_valid);
}

TEST(LogitMath, ExponentialsAreWithinTheirErrorOfDouble) {
  // Argument reduction and the polynomial each round a few times: 2^-22 is four units of a float's last place. The
  // argument itself carries half a unit of its own size, times up to 87.
  for (float z = -86.99f; z <= 0; z += 0.0137f) {
    float prob = 0;
    exp_pass({&z, 1}, 0, 1, &prob, nullptr);
    const double exact = std::exp(double{z});
    EXPECT_LE(std::abs(prob - exact), exact * 0x1p-22) << z;
  }
  const float edge[] = {0, -87.5f, -kInfinity, -1e30f};
  float probs[4];
  exp_pass(edge, 0, 1, probs, nullptr);
  EXPECT_EQ(probs[0], 1);
  for (int i = 1; i < 4; ++i) EXPECT_EQ(probs[i], 0);
}

TEST(LogitMath, SumsAgreeWithDoubleAndWithTheirBlocks) {
  for (const int64_t size : kSizes) {
    const auto logits = random_logits(size, 3);
    const float max = scan_logits(logits).max;
    std::vector<double> block_sums;
    const double total = exp_pass(logits, max, 0.5f, nullptr, &block_sums);
    double exact = 0, by_blocks = 0;
    for (const float logit : logits) exact += std::exp((double{logit} - max) * 0.5);
    for (const double sum : block_sums) by_blocks += sum;
    EXPECT_EQ(total, by_blocks);
    // 16 additions in float per lane (2^-24 each) beside the exponentials' and their arguments' own error.
    EXPECT_NEAR(total, exact, exact * 0x1p-18) << size;
  }
}

TEST(LogitMath, SelectTopEqualsAFullSort) {
  for (const int64_t size : kSizes) {
    for (const bool with_ties : {false, true}) {
      const auto logits = random_logits(size, 4, with_ties);
      std::vector<Candidate> sorted;
      for (int64_t i = 0; i < size; ++i) sorted.push_back({logits[i], static_cast<int32_t>(i)});
      std::sort(sorted.begin(), sorted.end(), ranks_before);
      for (const int64_t k : {0, 1, 5, 20, 256, 2048, 2049, 5000}) {
        std::vector<Candidate> top;
        select_top(logits, k, top);
        ASSERT_EQ(static_cast<int64_t>(top.size()), std::min(k, size));
        for (size_t i = 0; i < top.size(); ++i) {
          ASSERT_EQ(top[i].token_id, sorted[i].token_id) << size << " " << k << " " << i;
          ASSERT_EQ(top[i].value, sorted[i].value);
        }
      }
    }
  }
}

}  // namespace
}  // namespace hadal
