#include "kernels/packed_matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "kernels/kernel_test_support.h"

namespace hadal {
namespace {

// Element (row, col) of a row-major source as the bytes it consists of.
std::vector<std::byte> element(const std::vector<std::byte>& source, int64_t index, int64_t size) {
  return {source.begin() + index * size, source.begin() + (index + 1) * size};
}

std::vector<std::byte> packed_bytes(const PackedMatrix& w, int64_t row, int64_t col) {
  const int64_t size = static_cast<int64_t>(dtype_size_bytes(w.dtype));
  // The layout of packed_matrix.h, spelled out: [panel][pair][row of 32][2].
  const int64_t index = (((row / 32) * ((w.cols + 1) / 2) + col / 2) * 32 + row % 32) * 2 + col % 2;
  return {w.panels + index * size, w.panels + (index + 1) * size};
}

TEST(PackedMatrix, MovesEveryByteOnceAndPadsWithZero) {
  Random random(41);
  for (DType dtype : kWeightDTypes) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {31, 63}, {32, 64}, {33, 65}, {100, 257}}) {
      SCOPED_TRACE(fmt::format("{} {}x{}", dtype_name(dtype), rows, cols));
      const int64_t size = static_cast<int64_t>(dtype_size_bytes(dtype)), ld = cols + 3;
      std::vector<std::byte> source(rows * ld * size);
      for (std::byte& b : source) b = static_cast<std::byte>(random() % 255 + 1);
      PackedMatrix w = {.dtype = dtype, .rows = rows, .cols = cols};
      AlignedBytes panels(w.panels_bytes());
      std::memset(panels.data(), 0xAA, w.panels_bytes());
      for (int64_t p = 0; p < w.num_panels(); ++p) pack_panels(w, source.data(), ld, panels.data(), p, p + 1);
      w.panels = panels.data();

      std::vector<std::byte> transposed(rows * cols * size);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          const auto bytes = element(source, r * ld + c, size);
          std::copy(bytes.begin(), bytes.end(), transposed.begin() + (c * rows + r) * size);
        }
      }
      PackedMatrix wt = w;
      AlignedBytes panels_t(w.panels_bytes());
      std::memset(panels_t.data(), 0xAA, w.panels_bytes());
      pack_panels_transposed(wt, transposed.data(), rows, panels_t.data(), 0, w.num_panels());
      wt.panels = panels_t.data();

      for (int64_t r = 0; r < w.num_panels() * kPanelRows; ++r) {
        for (int64_t c = 0; c < 2 * w.num_k_pairs(); ++c) {
          const bool inside = r < rows && c < cols;
          const auto want = inside ? element(source, r * ld + c, size) : std::vector<std::byte>(size, std::byte{0});
          ASSERT_EQ(packed_bytes(w, r, c), want) << r << "," << c;
          ASSERT_EQ(packed_bytes(wt, r, c), want) << "transposed " << r << "," << c;
        }
      }
    }
  }
}

// What a rank holds: every element of its rows and columns with the scale that it has in the whole, nothing beside.
TEST(PackedMatrix, PartsKeepElementsAndScales) {
  Random random(42);
  for (DType dtype : kWeightDTypes) {
    const TestMatrix whole = random_matrix(random, dtype, 300, 270);
    for (const auto& [row, rows, col, cols] : {std::array<int64_t, 4>{0, 300, 0, 270},
                                               {0, 150, 135, 135},
                                               {120, 40, 128, 100},
                                               {144, 48, 33, 33},
                                               {100, 200, 255, 15},
                                               {299, 1, 127, 2}}) {
      SCOPED_TRACE(fmt::format("{} rows {} + {}, columns {} + {}", dtype_name(dtype), row, rows, col, cols));
      const TestMatrix part(whole, row, row + rows, col, col + cols);
      const PackedMatrix& w = part.w;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          ASSERT_EQ(packed_element(w, r, c), packed_element(whole.w, row + r, col + c)) << r << "," << c;
          if (dtype != DType::kF8E4M3) continue;
          ASSERT_EQ(w.scales[(w.row_offset + r) / kPanelRows * w.num_scale_cols() + (w.col_offset + c) / kScaleBlock],
                    whole.block_scales[(row + r) / kScaleBlock * 3 + (col + c) / kScaleBlock]);
        }
      }
      // All other elements are zero: as many bytes differ from zero as in the source.
      const auto not_zero = [](const std::byte* bytes, int64_t n) {
        return n - std::count(bytes, bytes + n, std::byte{0});
      };
      EXPECT_EQ(not_zero(w.panels, w.panels_bytes()),
                not_zero(part.source.data(), static_cast<int64_t>(part.source.size())));
    }
  }
}

// Panels keep to the grid of the whole only where they would straddle a block of scales otherwise.
TEST(PackedMatrix, PartsBeginInsideAPanelWhereTheyMust) {
  EXPECT_EQ(row_offset_of_part(0, 500), 0);
  EXPECT_EQ(row_offset_of_part(16, 16), 0);
  EXPECT_EQ(row_offset_of_part(16, 112), 0);
  EXPECT_EQ(row_offset_of_part(16, 113), 16);
  EXPECT_EQ(row_offset_of_part(120, 8), 0);
  EXPECT_EQ(row_offset_of_part(120, 9), 24);
  EXPECT_EQ(row_offset_of_part(1408, 88), 0);
}

TEST(PackedMatrix, ReadsElementsBack) {
  for (const auto& [dtype, bytes, want] :
       {std::tuple{DType::kF8E4M3, std::vector<uint8_t>{0x01, 0xFE}, std::pair{0x1p-9f, -448.0f}},
        {DType::kBF16, std::vector<uint8_t>{0x80, 0x3F, 0x00, 0xC0}, std::pair{1.0f, -2.0f}},
        {DType::kF32, std::vector<uint8_t>{0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0}, std::pair{1.0f, -2.0f}}}) {
    PackedMatrix w = {.dtype = dtype, .rows = 1, .cols = 2};
    AlignedBytes panels(w.panels_bytes());
    pack_panels(w, bytes.data(), 2, panels.data(), 0, 1);
    w.panels = panels.data();
    EXPECT_EQ(packed_element(w, 0, 0), want.first);
    EXPECT_EQ(packed_element(w, 0, 1), want.second);
  }
}

TEST(PackedMatrix, SpreadsScalesOverPanels) {
  PackedMatrix w = {.dtype = DType::kF8E4M3, .rows = 300, .cols = 260};  // 3 x 3 blocks, 10 panels
  const std::vector<float> blocks = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  ASSERT_EQ(w.num_scales(), 30);
  std::vector<float> scales(30);
  pack_scales(w, blocks.data(), scales.data());
  for (int64_t row = 0; row < 300; ++row) {
    for (int64_t col = 0; col < 260; ++col) {
      ASSERT_EQ(scales[row / 32 * 3 + col / 128], blocks[row / 128 * 3 + col / 128]);
    }
  }
  w.dtype = DType::kBF16;
  EXPECT_EQ(w.num_scales(), 0);
}

}  // namespace
}  // namespace hadal
