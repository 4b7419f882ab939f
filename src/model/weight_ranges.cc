#include "model/weight_ranges.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "quant/range_set.h"
#include "tensor/bf16.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

// Elements as integers whose order without the sign bit is that of the magnitudes, NaN above all.
template <typename Bits>
constexpr Bits kMagnitude = static_cast<Bits>(static_cast<Bits>(~Bits{0}) >> 1);

float value_of(uint8_t magnitude) { return e4m3_to_f32(magnitude); }
float value_of(uint16_t magnitude) { return bf16_to_f32({magnitude}); }
float value_of(uint32_t magnitude) {
  float value;
  std::memcpy(&value, &magnitude, sizeof(value));
  return value;
}

// Largest magnitudes of the 32 rows of a panel over columns [begin, end), counted from its first pair.
template <typename Bits>
std::array<float, kPanelRows> panel_magnitudes(const std::byte* panel, int64_t begin, int64_t end) {
  const auto* elements = reinterpret_cast<const Bits*>(panel);
  std::array<Bits, 2 * kPanelRows> largest{};
  int64_t k = begin;
  const auto add_single = [&](int64_t col) {
    for (int64_t row = 0; row < kPanelRows; ++row) {
      const Bits bits = elements[(col / 2 * kPanelRows + row) * 2 + col % 2] & kMagnitude<Bits>;
      Bits& slot = largest[static_cast<size_t>(2 * row)];
      slot = std::max(slot, bits);
    }
  };
  if (k % 2 != 0 && k < end) add_single(k++);
  for (; k + 2 <= end; k += 2) {
    const Bits* pair = elements + k * kPanelRows;
    for (size_t i = 0; i < largest.size(); ++i) {
      largest[i] = std::max<Bits>(largest[i], pair[i] & kMagnitude<Bits>);
    }
  }
  if (k < end) add_single(k);
  std::array<float, kPanelRows> values;
  for (size_t row = 0; row < values.size(); ++row) {
    values[row] = value_of(std::max(largest[2 * row], largest[2 * row + 1]));
  }
  return values;
}

std::array<float, kPanelRows> magnitudes_of(const PackedMatrix& w, int64_t panel, int64_t begin, int64_t end) {
  const std::byte* base = w.panels + panel * w.panel_bytes();
  if (w.dtype == DType::kF8E4M3) return panel_magnitudes<uint8_t>(base, begin, end);
  if (w.dtype == DType::kBF16) return panel_magnitudes<uint16_t>(base, begin, end);
  HADAL_CHECK(w.dtype == DType::kF32, "no packed matrices of type {}", dtype_name(w.dtype));
  return panel_magnitudes<uint32_t>(base, begin, end);
}

// fn(row, col_begin, amax) for every row and every piece of its columns that is cut at multiples of cols_per_unit and,
// with block scales, at blocks of the whole matrix.
template <typename Fn>
void for_each_piece(const PackedMatrix& w, int64_t cols_per_unit, Fn fn) {
  const bool has_blocks = w.dtype == DType::kF8E4M3;
  const int64_t lead = w.col_offset % 2;  // columns of the first pair that another part has
  for (int64_t panel = 0; panel < w.num_panels(); ++panel) {
    const int64_t first_lane = panel == 0 ? w.row_offset : 0;
    const int64_t first_row = panel * kPanelRows + first_lane - w.row_offset;
    const int64_t num_rows = std::min(kPanelRows - first_lane, w.rows - first_row);
    for (int64_t begin = 0; begin < w.cols;) {
      int64_t end = std::min(w.cols, (begin / cols_per_unit + 1) * cols_per_unit);
      const int64_t block = (w.col_offset + begin) / kScaleBlock;
      if (has_blocks) end = std::min(end, (block + 1) * kScaleBlock - w.col_offset);
      const float scale = has_blocks ? std::fabs(round_to_bf16(w.scales[panel * w.num_scale_cols() + block])) : 1.0f;
      const auto magnitudes = magnitudes_of(w, panel, lead + begin, lead + end);
      for (int64_t i = 0; i < num_rows; ++i) {
        const int64_t row = first_row + i;
        const float row_scale = w.row_scales != nullptr ? std::fabs(w.row_scales[row]) : 1.0f;
        fn(row, begin, round_to_bf16(magnitudes[static_cast<size_t>(first_lane + i)] * scale * row_scale));
      }
      begin = end;
    }
  }
}

}  // namespace

void raise_by_rows(const PackedMatrix& w, std::span<float> slots) {
  if (slots.empty() || w.rows == 0) return;
  const auto count = static_cast<int64_t>(slots.size());
  HADAL_CHECK(w.rows % count == 0, "{} rows for {} ranges", w.rows, count);
  for_each_piece(w, w.cols, [&](int64_t row, int64_t, float amax) {
    raise_range(slots[static_cast<size_t>(row / (w.rows / count))], amax);
  });
}

void raise_by_cols(const PackedMatrix& w, std::span<float> slots) {
  if (slots.empty() || w.cols == 0) return;
  const auto count = static_cast<int64_t>(slots.size());
  HADAL_CHECK(w.cols % count == 0, "{} columns for {} ranges", w.cols, count);
  const int64_t cols_per_unit = w.cols / count;
  for_each_piece(w, cols_per_unit, [&](int64_t, int64_t col, float amax) {
    raise_range(slots[static_cast<size_t>(col / cols_per_unit)], amax);
  });
}

}  // namespace hadal
