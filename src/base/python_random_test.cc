#include "base/python_random.h"

#include <gtest/gtest.h>

#include <numeric>

namespace hadal {
namespace {

// The values are CPython 3.11's.
TEST(PythonRandom, UniformAndShuffleEqualPythons) {
  PythonRandom random(0);
  for (const double expected : {0.8444218515250481, 0.7579544029403025, 0.420571580830845, 0.25891675029296335}) {
    EXPECT_EQ(random.uniform(), expected);
  }
  std::vector<int> items(12);
  std::iota(items.begin(), items.end(), 0);
  random.shuffle(items);
  EXPECT_EQ(items, (std::vector<int>{9, 0, 3, 5, 1, 11, 2, 10, 4, 6, 7, 8}));
  for (const int expected : {75, 61, 25, 90, 98, 81, 90, 31})
    EXPECT_EQ(static_cast<int>(random.uniform() * 100), expected);
}

TEST(PythonRandom, SeedsBeyond32Bits) {
  PythonRandom random((uint64_t{1} << 40) + 7);
  std::vector<int> items = {0, 1, 2, 3, 4}, none;
  random.shuffle(none);
  random.shuffle(items);
  EXPECT_EQ(items, (std::vector<int>{2, 0, 1, 3, 4}));
  EXPECT_EQ(random.uniform(), 0.5168145773952448);
}

}  // namespace
}  // namespace hadal
