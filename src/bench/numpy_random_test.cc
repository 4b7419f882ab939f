#include "bench/numpy_random.h"

#include <gtest/gtest.h>

#include <vector>

namespace hadal {
namespace {

std::vector<int64_t> integers(NumpyRandom& random, int64_t low, int64_t high, int count) {
  std::vector<int64_t> values;
  for (int i = 0; i < count; ++i) values.push_back(random.randint(low, high));
  return values;
}

// log and pow may differ in the last bits between C libraries; a wrong draw differs in the first.
void expect_gammas(NumpyRandom& random, double shape, double scale, const std::vector<double>& expected) {
  for (const double value : expected) EXPECT_NEAR(random.gamma(shape, scale), value, 1e-14) << shape;
}

// All values are NumPy 2.4's; its legacy generator gives the same ones in every version.
TEST(NumpyRandom, OneStreamOfIntegersAndGammasEqualsNumpys) {
  NumpyRandom random(0);
  EXPECT_EQ(integers(random, 1024, 1025, 3), (std::vector<int64_t>{1024, 1024, 1024}));
  EXPECT_EQ(integers(random, 10, 1000, 6), (std::vector<int64_t>{694, 569, 639, 202, 845, 773}));
  EXPECT_EQ(integers(random, 0, 128000, 5), (std::vector<int64_t>{95939, 97639, 41993, 122579, 86293}));
  EXPECT_EQ(integers(random, 0, int64_t{1} << 31, 2), (std::vector<int64_t>{1650906866, 1879422756}));
  EXPECT_EQ(integers(random, 5, (int64_t{1} << 32) + 4, 2), (std::vector<int64_t>{1277901404, 3830135883}));
  expect_gammas(
      random, 1.0, 0.25,
      {0.014596167695175835, 0.07958903523206695, 0.16236158977456847, 0.41805280315681764, 0.1634706422728683});
  expect_gammas(
      random, 0.5, 0.5,
      {0.07713994802398519, 0.056918084532157555, 0.06780091583206894, 0.009849170781219269, 0.1121522902739925});
  expect_gammas(random, 2.5, 0.1,
                {0.667059220552098, 0.252297211652271, 0.5463352130365239, 0.2523864429278321, 0.31586756110053166});
  expect_gammas(random, 0.0, 2.0, {0.0, 0.0});
}

TEST(NumpyRandom, TheLargestSeed) {
  NumpyRandom random(4294967295);
  EXPECT_EQ(integers(random, 0, 7, 10), (std::vector<int64_t>{3, 2, 4, 4, 0, 6, 2, 1, 0, 3}));
  expect_gammas(random, 3.0, 0.1, {0.12627237134464606});
  expect_gammas(random, 0.3, 2.0, {0.27885172851457185});
  EXPECT_EQ(random.uniform(), 0.4142464457254096);
}

}  // namespace
}  // namespace hadal
