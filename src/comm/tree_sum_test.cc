#include "comm/tree_sum.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <random>
#include <vector>

#include "tensor/bf16.h"

namespace hadal {
namespace {

std::vector<std::vector<float>> random_rows(size_t num_rows, size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 100);
  std::vector<std::vector<float>> rows(num_rows, std::vector<float>(count));
  for (auto& row : rows) {
    for (float& value : row) value = normal(generator);
  }
  return rows;
}

std::vector<const void*> pointers(const std::vector<std::vector<float>>& rows) {
  std::vector<const void*> inputs;
  for (const auto& row : rows) inputs.push_back(row.data());
  return inputs;
}

// The definition, one element at a time.
float by_definition(const std::vector<std::vector<float>>& rows, size_t first, size_t last, size_t i) {
  if (last - first == 1) return rows[first][i];
  const size_t half = std::bit_ceil(last - first) / 2;
  return by_definition(rows, first, first + half, i) + by_definition(rows, first + half, last, i);
}

std::vector<float> sum_of(const std::vector<std::vector<float>>& rows) {
  std::vector<float> out(rows[0].size());
  tree_sum(pointers(rows), 0, static_cast<int64_t>(out.size()), DType::kF32, out.data());
  return out;
}

TEST(TreeSum, FollowsItsDefinition) {
  for (const size_t num_rows : {1, 2, 3, 5, 8, 13, 16}) {
    const auto rows = random_rows(num_rows, 1300, static_cast<uint32_t>(num_rows));
    const auto sum = sum_of(rows);
    for (size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(sum[i], by_definition(rows, 0, num_rows, i)) << num_rows;
  }
}

// What lets every tensor-parallel degree give the same bits: whole subtrees, joined, are the tree.
TEST(TreeSum, OfSubtreesIsTheTree) {
  const auto leaves = random_rows(16, 700, 7);
  const auto whole = sum_of(leaves);
  for (const size_t world : {1, 2, 4, 8, 16}) {
    std::vector<std::vector<float>> partial;
    for (size_t rank = 0; rank < world; ++rank) {
      const size_t share = 16 / world;
      partial.push_back(sum_of({leaves.begin() + rank * share, leaves.begin() + (rank + 1) * share}));
    }
    const auto joined = sum_of(partial);
    EXPECT_EQ(std::memcmp(joined.data(), whole.data(), whole.size() * sizeof(float)), 0) << world;
  }
  // The order matters for these numbers, so the test can fail.
  auto shuffled = leaves;
  std::swap(shuffled[1], shuffled[2]);
  EXPECT_NE(sum_of(shuffled), whole);
}

TEST(TreeSum, RoundsBf16Once) {
  const auto rows = random_rows(4, 600, 3);
  std::vector<std::vector<bf16_t>> halves;
  std::vector<std::vector<float>> widened;
  std::vector<const void*> inputs;
  for (const auto& row : rows) {
    auto& half = halves.emplace_back();
    auto& wide = widened.emplace_back();
    for (const float value : row) {
      half.push_back(f32_to_bf16(value));
      wide.push_back(bf16_to_f32(half.back()));
    }
  }
  for (const auto& half : halves) inputs.push_back(half.data());
  std::vector<bf16_t> out(600);
  tree_sum(inputs, 0, 600, DType::kBF16, out.data());
  const auto exact = sum_of(widened);
  for (size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i].bits, f32_to_bf16(exact[i]).bits);
}

TEST(TreeSum, TakesPartsAndSumsInPlace) {
  auto rows = random_rows(3, 900, 5);
  const auto whole = sum_of(rows);
  std::vector<float> part(100);
  tree_sum(pointers(rows), 700, 100, DType::kF32, part.data());
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 700));
  tree_sum(pointers(rows), 0, 900, DType::kF32, rows[0].data());
  EXPECT_EQ(rows[0], whole);
  tree_sum(pointers(rows), 0, 0, DType::kF32, nullptr);
}

}  // namespace
}  // namespace hadal
