// The passes over rows of logits of every table (the reference included) against double.
#include "kernels/row_math.h"

#include <algorithm>

#include "kernels/kernel_test_support.h"

namespace hadal {
namespace {

const float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kPoison = -12288.0f;
constexpr int64_t kSizes[] = {1, 2, 7, 8, 15, 16, 17, 31, 255, 256, 257, 511, 512, 513, 1000, 129280, 129281};

class RowPasses : public ::testing::TestWithParam<Isa> {
 protected:
  const RowMath& math() const { return row_math_for(GetParam()); }
};

std::vector<float> random_row(Random& random, int64_t n, float sigma = 4) {
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> row(n);
  for (float& x : row) x = normal(random);
  return row;
}

int64_t num_blocks(int64_t n) { return (n + kLogitBlock - 1) / kLogitBlock; }

// Results with one more element behind, which no pass may touch.
struct Blocks {
  std::vector<float> maxima, sums;
  bool valid = false;

  Blocks(const RowMath& math, const std::vector<float>& row, float scale)
      : maxima(num_blocks(row.size()) + 1, kPoison), sums(maxima) {
    valid = math.block_softmax(row.data(), row.size(), scale, maxima.data(), sums.data());
  }
};

std::vector<float> exact_maxima(const std::vector<float>& row) {
  std::vector<float> maxima(num_blocks(row.size()) + 1, -kInfinity);
  for (size_t i = 0; i < row.size(); ++i) maxima[i / kLogitBlock] = std::max(maxima[i / kLogitBlock], row[i]);
  maxima.back() = kPoison;
  return maxima;
}

double exp_error(double z) { return 0x1p-22 * (1 + std::fabs(z)); }  // relative; row_math.h

TEST_P(RowPasses, MaximaOfEachBlock) {
  Random random(41);
  for (const int64_t n : kSizes) {
    auto row = random_row(random, n);
    std::vector<float> maxima(num_blocks(n) + 1, kPoison);
    EXPECT_TRUE(math().block_maxima(row.data(), n, maxima.data()));
    EXPECT_EQ(maxima, exact_maxima(row)) << n;
    EXPECT_EQ(Blocks(math(), row, 1).maxima, exact_maxima(row)) << n;
    // Where each maximum stands alone.
    std::fill(row.begin(), row.end(), -kInfinity);
    for (const int64_t at : {int64_t{0}, n / 2, n - 1}) row[at] = -kLargest;
    EXPECT_TRUE(math().block_maxima(row.data(), n, maxima.data()));
    EXPECT_EQ(maxima, exact_maxima(row)) << n;
  }
}

TEST_P(RowPasses, SumsOfEachBlock) {
  Random random(42);
  for (const int64_t n : kSizes) {
    for (const float scale : {1.0f, 0.01f, 40.0f}) {
      const auto row = random_row(random, n);
      const Blocks blocks(math(), row, scale);
      ASSERT_TRUE(blocks.valid);
      std::vector<double> sums(num_blocks(n)), slack(num_blocks(n));
      for (int64_t i = 0; i < n; ++i) {
        const int64_t b = i / kLogitBlock;
        const double z = (double{row[i]} - blocks.maxima[b]) * scale, weight = std::exp(z);
        sums[b] += weight;
        slack[b] += weight * exp_error(z) + 0x1p-126;
      }
      // At most 32 additions in a row (the portable table's), each rounding by half a unit, and a few that join them.
      for (int64_t b = 0; b < num_blocks(n); ++b) {
        ASSERT_NEAR(blocks.sums[b], sums[b], slack[b] + sums[b] * 36 * 0x1p-24) << n << " " << scale << " " << b;
      }
      EXPECT_EQ(blocks.sums.back(), kPoison);
    }
  }
}

TEST_P(RowPasses, ExponentialsAreWithinTheirError) {
  std::vector<float> row;
  for (float z = -86.99f; z <= 0; z += 0.00137f) row.push_back(z);
  std::vector<float> out(row.size() + 1, kPoison);
  math().exp_row(row.data(), row.size(), 0, 1, out.data());
  for (size_t i = 0; i < row.size(); ++i) {
    const double exact = std::exp(double{row[i]});
    ASSERT_NEAR(out[i], exact, exact * exp_error(row[i])) << row[i];
  }
  EXPECT_EQ(out.back(), kPoison);
}

TEST_P(RowPasses, ExponentialsOfAnyCountAndInPlace) {
  Random random(43);
  for (int64_t n = 1; n < 70; ++n) {
    auto row = random_row(random, n);
    const float max = *std::max_element(row.begin(), row.end());
    std::vector<float> out(n + 1, kPoison);
    math().exp_row(row.data(), n, max, 0.5f, out.data());
    EXPECT_EQ(out.back(), kPoison);
    for (int64_t i = 0; i < n; ++i) {
      const double z = (double{row[i]} - max) * 0.5;
      ASSERT_NEAR(out[i], std::exp(z), std::exp(z) * exp_error(z)) << n << " " << i;
    }
    math().exp_row(row.data(), n, max, 0.5f, row.data());
    out.pop_back();
    EXPECT_TRUE(same_bits(row, out)) << "in place";
  }
}

TEST_P(RowPasses, ExactAtTheEdges) {
  const std::vector<float> row = {3, 3 - 88.5f, -kInfinity, -1e30f, -kLargest, kNaN};
  std::vector<float> out(row.size());
  math().exp_row(row.data(), row.size(), 3, 1, out.data());
  EXPECT_EQ(out[0], 1);
  for (size_t i = 1; i < 5; ++i) EXPECT_EQ(out[i], 0) << i;
  EXPECT_TRUE(std::isnan(out[5]));
  // Equal values: a sum is their count.
  const Blocks flat(math(), std::vector<float>(600, -7.25f), 3);
  EXPECT_EQ(flat.sums, (std::vector<float>{256, 256, 88, kPoison}));
  // Differences and products that overflow are infinitely far below.
  std::vector<float> wide(300, -kLargest);
  wide[299] = kLargest;
  const Blocks apart(math(), wide, 1e5f);
  EXPECT_TRUE(apart.valid);
  EXPECT_EQ(apart.sums, (std::vector<float>{256, 1, kPoison}));
}

TEST_P(RowPasses, ForbiddenTokensWeighNothing) {
  std::vector<float> row(700, -kInfinity);
  Blocks none(math(), row, 1);
  EXPECT_TRUE(none.valid);
  EXPECT_EQ(none.sums, (std::vector<float>{0, 0, 0, kPoison}));
  row[511] = -2;
  Blocks one(math(), row, 1);
  EXPECT_TRUE(one.valid);
  EXPECT_EQ(one.maxima, (std::vector<float>{-kInfinity, -2, -kInfinity, kPoison}));
  EXPECT_EQ(one.sums, (std::vector<float>{0, 1, 0, kPoison}));
}

TEST_P(RowPasses, FindsOneBadValueAnywhere) {
  Random random(44);
  const float payload = std::nanf("0x12345");  // its low bits must not vanish in integer arithmetic
  for (const float bad : {kInfinity, kNaN, -kNaN, payload}) {
    for (const int64_t n : {1, 20, 256, 300, 700}) {
      const auto good = random_row(random, n);
      std::vector<float> maxima(num_blocks(n));
      for (int64_t where = 0; where < n; ++where) {
        auto row = good;
        row[where] = bad;
        ASSERT_FALSE(math().block_maxima(row.data(), n, maxima.data())) << n << " " << where << " " << bad;
        ASSERT_FALSE(Blocks(math(), row, 1).valid) << n << " " << where << " " << bad;
      }
    }
  }
  std::vector<float> all(600, kNaN), maxima(3);
  EXPECT_FALSE(math().block_maxima(all.data(), 600, maxima.data()));
  EXPECT_FALSE(Blocks(math(), all, 1).valid);
}

TEST_P(RowPasses, ABlockDependsOnItselfAlone) {
  Random random(45);
  const auto row = random_row(random, 5 * kLogitBlock + 100);
  const Blocks whole(math(), row, 0.7f);
  for (int64_t b = 0; b < 6; ++b) {
    const auto begin = row.begin() + b * kLogitBlock;
    const Blocks alone(math(), std::vector<float>(begin, std::min(begin + kLogitBlock, row.end())), 0.7f);
    EXPECT_TRUE(same_bits({alone.sums[0], alone.maxima[0]}, {whole.sums[b], whole.maxima[b]})) << b;
  }
}

INSTANTIATE_TEST_SUITE_P(Tables, RowPasses, ::testing::ValuesIn(available_isas()), isa_test_name);

}  // namespace
}  // namespace hadal
