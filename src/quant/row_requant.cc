#include "quant/row_requant.h"

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "base/check.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

// The loops below are written so that compilers make vectors of them: no branches, no tables, sums in lanes.
constexpr size_t kLanes = 16;
constexpr size_t kSumCols = 128;  // summed in FP32 before they go to the double sums

// An E4M3 magnitude in the upper bits of a float is its value times 2^-120, subnormal codes included. NaN gives 480.
float decode_fields(uint8_t code) {
  const uint32_t bits = static_cast<uint32_t>(code & 0x80) << 24 | static_cast<uint32_t>(code & 0x7F) << 20;
  return std::bit_cast<float>(bits) * 0x1p120f;
}

// f32_to_e4m3() of a number that is not NaN.
uint32_t encode_number(float value, uint32_t max_bits) {
  constexpr uint32_t kSmallestNormal = std::bit_cast<uint32_t>(0x1p-6f);
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = std::min(bits & 0x7FFFFFFFu, max_bits);
  const float aligned = std::bit_cast<float>(magnitude) + 0x1p14f;
  const uint32_t low = std::bit_cast<uint32_t>(aligned) - std::bit_cast<uint32_t>(0x1p14f);
  const uint32_t high = ((magnitude + 0x7FFFFu + ((magnitude >> 20) & 1u)) >> 20) - (120u << 3);
  const uint32_t is_low = 0u - static_cast<uint32_t>(magnitude < kSmallestNormal);
  return (low & is_low) | (high & ~is_low) | ((bits >> 24) & 0x80u);
}

int64_t num_rows(const BlockRows& rows) { return static_cast<int64_t>(rows.codes.size()) / rows.cols; }

std::span<const uint8_t> codes_of(const BlockRows& rows, int64_t row) {
  return rows.codes.subspan(static_cast<size_t>(row * rows.cols), static_cast<size_t>(rows.cols));
}

bool is_nan(uint8_t code) { return (code & 0x7F) == kE4m3NaN; }

// One row's values; NaN as 0. Returns the number of NaN.
uint64_t decode_row(const BlockRows& rows, int64_t row, std::span<float> out) {
  const auto codes = codes_of(rows, row);
  const auto block_cols = static_cast<size_t>(rows.layout.block_cols);
  for (size_t begin = 0; begin < codes.size(); begin += block_cols) {
    const size_t end = std::min(codes.size(), begin + block_cols);
    const int64_t scale_idx = rows.layout.scale_idx(rows.first_row + row, static_cast<int64_t>(begin), rows.cols);
    const float scale = rows.scales[static_cast<size_t>(scale_idx)];
    for (size_t col = begin; col < end; ++col) out[col] = decode_fields(codes[col]) * scale;
  }
  uint64_t num_nan = 0;
  for (const uint8_t code : codes) num_nan += is_nan(code) ? 1 : 0;
  for (size_t col = 0; num_nan > 0 && col < codes.size(); ++col) {
    if (is_nan(codes[col])) out[col] = 0;
  }
  return num_nan;
}

// Not negative floats are ordered as their bits.
float max_magnitude(std::span<const float> values) {
  uint32_t most = 0;
  for (const float value : values) most = std::max(most, std::bit_cast<uint32_t>(value) & 0x7FFFFFFFu);
  return std::bit_cast<float>(most);
}

// In FP32: the errors are 2^-4 of the weights and more, or none.
struct LaneSums {
  std::array<float, kLanes> signal{}, noise{};
  std::array<uint32_t, kLanes> inexact{};

  // Up to kSumCols columns, a multiple of kLanes.
  void add(const float* values, const uint8_t* codes, size_t num_cols, float scale) {
    for (size_t col = 0; col < num_cols; col += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const float value = values[col + lane], error = decode_fields(codes[col + lane]) * scale - value;
        signal[lane] += value * value;
        noise[lane] += error * error;
        inexact[lane] += static_cast<uint32_t>(error != 0);
      }
    }
  }
};

void add_row(std::span<const float> values, std::span<const uint8_t> codes, float scale, CodeMapStats& stats) {
  for (size_t col = 0; col < values.size(); col += kSumCols) {
    const size_t count = std::min(kSumCols, values.size() - col);
    LaneSums sums;
    if (count % kLanes == 0) {
      sums.add(values.data() + col, codes.data() + col, count, scale);
    } else {
      std::array<float, kSumCols> padded_values{};
      std::array<uint8_t, kSumCols> padded_codes{};
      std::copy_n(values.begin() + static_cast<ptrdiff_t>(col), count, padded_values.begin());
      std::copy_n(codes.begin() + static_cast<ptrdiff_t>(col), count, padded_codes.begin());
      sums.add(padded_values.data(), padded_codes.data(), kSumCols, scale);
    }
    for (size_t lane = 0; lane < kLanes; ++lane) {
      stats.signal += static_cast<double>(sums.signal[lane]);
      stats.noise += static_cast<double>(sums.noise[lane]);
      stats.num_inexact += sums.inexact[lane];
    }
  }
}

}  // namespace

void compute_row_scales(const BlockRows& rows, FpRange range, std::span<float> row_scales) {
  std::vector<float> values(static_cast<size_t>(rows.cols));
  for (int64_t row = 0; row < num_rows(rows); ++row) {
    decode_row(rows, row, values);
    const float scale = max_magnitude(values) / full_scale(range);
    row_scales[static_cast<size_t>(row)] = scale == 0 ? 1.0f : scale;
  }
}

CodeMapStats requantise_rows(const BlockRows& rows, FpRange range, std::span<const float> row_scales,
                             std::span<uint8_t> out) {
  HADAL_CHECK(out.size() == rows.codes.size() && static_cast<int64_t>(row_scales.size()) == num_rows(rows), "{} codes",
              out.size());
  CodeMapStats stats;
  stats.num_codes = rows.codes.size();
  const uint32_t max_bits = std::bit_cast<uint32_t>(full_scale(range));
  std::vector<float> values(static_cast<size_t>(rows.cols));
  for (int64_t row = 0; row < num_rows(rows); ++row) {
    const uint64_t num_nan = decode_row(rows, row, values);
    const float scale = row_scales[static_cast<size_t>(row)];
    const auto codes = out.subspan(static_cast<size_t>(row * rows.cols), values.size());
    for (size_t col = 0; col < values.size(); ++col) {
      codes[col] = static_cast<uint8_t>(encode_number(values[col] / scale, max_bits));
    }
    add_row(values, codes, scale, stats);
    stats.num_zero_rows += max_magnitude(values) == 0 ? 1 : 0;
    stats.num_nan += num_nan;
    const auto old = codes_of(rows, row);
    for (size_t col = 0; num_nan > 0 && col < values.size(); ++col) {
      if (is_nan(old[col])) codes[col] = old[col];
    }
  }
  return stats;
}

}  // namespace hadal
