#include "quant/row_requant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "tensor/fp8.h"

namespace hadal {
namespace {

constexpr int64_t kRows = 200, kCols = 300;  // ragged blocks: 2 x 3

struct Weight {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  BlockRows rows() const { return {.codes = codes, .first_row = 0, .cols = kCols, .scales = scales}; }
};

Weight make_weight() {
  std::mt19937 source(1);
  Weight weight;
  weight.codes.resize(static_cast<size_t>(kRows * kCols));
  for (uint8_t& code : weight.codes) {
    code = static_cast<uint8_t>(source());
    if ((code & 0x7F) == kE4m3NaN) code = 0x10;
  }
  for (int i = 0; i < 6; ++i) weight.scales.push_back(std::exp2(static_cast<float>(i) - 12) * 1.1f);
  return weight;
}

float value_of(const Weight& weight, int64_t row, int64_t col) {
  return e4m3_to_f32(weight.codes[static_cast<size_t>(row * kCols + col)]) *
         weight.scales[static_cast<size_t>(row / 128 * 3 + col / 128)];
}

// Half a unit in the last place of a code: relative for normal codes, absolute below the smallest of them. The division
// before the cast and the scale's own rounding add two FP32 roundings.
double tolerance(double value, double row_scale) {
  return std::max(std::fabs(value) / 16, row_scale * 0x1p-10) * (1 + 0x1p-20);
}

TEST(RowRequant, EveryCodeIsTheNearestOfItsRow) {
  const Weight weight = make_weight();
  for (const FpRange range : {FpRange::kGaudi2, FpRange::kGaudi3}) {
    std::vector<float> scales(kRows);
    std::vector<uint8_t> codes(weight.codes.size());
    compute_row_scales(weight.rows(), range, scales);
    const CodeMapStats stats = requantise_rows(weight.rows(), range, scales, codes);
    EXPECT_EQ(stats.num_codes, codes.size());
    double signal = 0, noise = 0;
    for (int64_t row = 0; row < kRows; ++row) {
      const auto at = static_cast<size_t>(row);
      float amax = 0;
      uint8_t top = 0;
      for (int64_t col = 0; col < kCols; ++col) {
        const double value = value_of(weight, row, col);
        const uint8_t code = codes[static_cast<size_t>(row * kCols + col)];
        const double error = static_cast<double>(e4m3_to_f32(code)) * scales[at] - value;
        ASSERT_LE(std::fabs(error), tolerance(value, scales[at])) << row << " " << col;
        amax = std::max(amax, static_cast<float>(std::fabs(value)));
        top = std::max(top, static_cast<uint8_t>(code & 0x7F));
        signal += value * value;
        noise += error * error;
      }
      EXPECT_EQ(scales[at], amax / full_scale(range));
      EXPECT_EQ(top, range == FpRange::kGaudi2 ? 0x77 : 0x7E) << row;
    }
    // Sums of 8 squares in FP32 are off by at most 10 roundings. An error is the difference of two FP32 numbers at most
    // 16 times as large (half a unit of three mantissa bits), so its own rounding counts 16 times, and twice in the
    // square.
    EXPECT_NEAR(stats.signal, signal, signal * 10 * 0x1p-24);
    EXPECT_NEAR(stats.noise, noise, noise * (10 + 64) * 0x1p-24 + signal * 0x1p-40);
  }
}

TEST(RowRequant, PiecesGiveTheSameAsTheWhole) {
  const Weight weight = make_weight();
  std::vector<float> whole(kRows), part(70);
  compute_row_scales(weight.rows(), FpRange::kGaudi2, whole);
  BlockRows rows = weight.rows();
  rows.first_row = 100;  // crosses into the second row of blocks
  rows.codes = std::span(weight.codes).subspan(100 * kCols, 70 * kCols);
  compute_row_scales(rows, FpRange::kGaudi2, part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 100));
}

TEST(RowRequant, ZeroRowsAndNaNAreSafe) {
  Weight weight = make_weight();
  std::fill_n(weight.codes.begin(), kCols, uint8_t{0x80});
  weight.codes[kCols] = 0xFF;
  for (int64_t col = 0; col < kCols; ++col) weight.codes[static_cast<size_t>(2 * kCols + col)] = 0x01;
  std::fill(weight.scales.begin(), weight.scales.end(), 1e-45f);  // row 2: the row scale itself becomes 0
  std::vector<float> scales(kRows);
  std::vector<uint8_t> codes(weight.codes.size());
  compute_row_scales(weight.rows(), FpRange::kGaudi2, scales);
  const CodeMapStats stats = requantise_rows(weight.rows(), FpRange::kGaudi2, scales, codes);
  EXPECT_EQ(scales[0], 1.0f);
  EXPECT_EQ(scales[2], 1.0f);
  EXPECT_TRUE(std::all_of(codes.begin(), codes.begin() + kCols, [](uint8_t code) { return code == 0x80; }));
  EXPECT_EQ(codes[kCols], 0xFF);
  EXPECT_TRUE(std::isfinite(scales[1]));
  EXPECT_EQ(stats.num_nan, 1u);
  EXPECT_EQ(stats.num_zero_rows, 2u);
}

}  // namespace
}  // namespace hadal
