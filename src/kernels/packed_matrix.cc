#include "kernels/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "tensor/bf16.h"
#include "tensor/fp8.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace hadal {
namespace {

// out[p][r] = tile[r][p], the inner step of packing: kPairs is one cache line of pairs.
template <typename Pair, int64_t kPairs>
void transpose_tile(const Pair (*tile)[kPairs], int64_t num_pairs, Pair* out) {
  for (int64_t p = 0; p < num_pairs; ++p) {
    for (int64_t r = 0; r < kPanelRows; ++r) out[p * kPanelRows + r] = tile[r][p];
  }
}

#if defined(__SSE2__)

// 8 rows x 8 pairs of 16 bits: three rounds of interleaving, each of rows half of the remaining distance apart.
void transpose_8x8(const uint16_t (*tile)[32], int64_t row, int64_t pair, uint16_t* out) {
  __m128i v[8], t[8];
  for (int i = 0; i < 8; ++i) v[i] = _mm_load_si128(reinterpret_cast<const __m128i*>(&tile[row + i][pair]));
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 4; ++i) {
      t[2 * i] = _mm_unpacklo_epi16(v[i], v[i + 4]);
      t[2 * i + 1] = _mm_unpackhi_epi16(v[i], v[i + 4]);
    }
    for (int i = 0; i < 8; ++i) v[i] = t[i];
  }
  for (int i = 0; i < 8; ++i) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + (pair + i) * kPanelRows + row), v[i]);
  }
}

template <>
void transpose_tile<uint16_t, 32>(const uint16_t (*tile)[32], int64_t num_pairs, uint16_t* out) {
  const int64_t whole = num_pairs / 8 * 8;
  for (int64_t pair = 0; pair < whole; pair += 8) {
    for (int64_t row = 0; row < kPanelRows; row += 8) transpose_8x8(tile, row, pair, out);
  }
  for (int64_t p = whole; p < num_pairs; ++p) {
    for (int64_t r = 0; r < kPanelRows; ++r) out[p * kPanelRows + r] = tile[r][p];
  }
}

#endif

// A pair of neighbouring k of one row is the unit that moves: 2, 4 or 8 bytes.
template <typename Pair, typename Element>
void pack_panel(const Element* src, int64_t ld, int64_t rows, int64_t cols, Pair* dst) {
  static_assert(sizeof(Pair) == 2 * sizeof(Element));
  // One cache line of each row at a time, so that 32 source lines and the destination stay in L1.
  constexpr int64_t kTilePairs = 64 / sizeof(Pair);
  const int64_t num_pairs = cols / 2;
  for (int64_t pair0 = 0; pair0 < num_pairs; pair0 += kTilePairs) {
    const int64_t pairs = std::min(kTilePairs, num_pairs - pair0);
    alignas(64) Pair tile[kPanelRows][kTilePairs];
    if (rows < kPanelRows) std::memset(tile, 0, sizeof(tile));
    for (int64_t r = 0; r < rows; ++r) {
      // A whole line has a constant size, which compilers copy without a call.
      const Element* from = src + r * ld + 2 * pair0;
      if (pairs == kTilePairs) {
        std::memcpy(tile[r], from, sizeof(tile[r]));
      } else {
        std::memcpy(tile[r], from, pairs * sizeof(Pair));
      }
    }
    transpose_tile<Pair, kTilePairs>(tile, pairs, dst + pair0 * kPanelRows);
  }
  if (cols % 2 == 0) return;
  Element last[kPanelRows][2] = {};
  for (int64_t r = 0; r < rows; ++r) last[r][0] = src[r * ld + cols - 1];
  std::memcpy(dst + num_pairs * kPanelRows, last, sizeof(last));
}

// src: [cols, rows], so a line of src holds one k of all rows of the panel.
template <typename Pair, typename Element>
void pack_panel_transposed(const Element* src, int64_t ld, int64_t rows, int64_t cols, Pair* dst) {
  for (int64_t k = 0; k < cols; k += 2) {
    Element pairs[kPanelRows][2] = {};
    for (int64_t r = 0; r < rows; ++r) pairs[r][0] = src[k * ld + r];
    if (k + 1 < cols) {
      for (int64_t r = 0; r < rows; ++r) pairs[r][1] = src[(k + 1) * ld + r];
    }
    std::memcpy(dst + k / 2 * kPanelRows, pairs, sizeof(pairs));
  }
}

// Any lane of the first row and any column of the first pair: element by element.
template <typename Pair, typename Element>
void pack_panel_at(const Element* src, int64_t ld, int64_t rows, int64_t cols, int64_t lane, int64_t lead, Pair* dst) {
  auto* out = reinterpret_cast<Element*>(dst);
  std::memset(out, 0, static_cast<size_t>((lead + cols + 1) / 2 * kPanelRows) * sizeof(Pair));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < cols; ++k) {
      out[((lead + k) / 2 * kPanelRows + lane + r) * 2 + (lead + k) % 2] = src[r * ld + k];
    }
  }
}

template <typename Pair, typename Element>
void pack_range(const PackedMatrix& w, const void* src, int64_t ld, bool transposed, std::byte* dst,
                int64_t panel_begin, int64_t panel_end) {
  const auto* elements = static_cast<const Element*>(src);
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    auto* out = reinterpret_cast<Pair*>(dst + panel * w.panel_bytes());
    const int64_t lane = panel == 0 ? w.row_offset : 0, row0 = panel * kPanelRows + lane - w.row_offset;
    const int64_t rows = std::min(kPanelRows - lane, w.rows - row0);
    if (lane != 0 || w.col_offset % 2 != 0) {
      HADAL_CHECK(!transposed, "a part of a matrix, transposed");
      pack_panel_at<Pair>(elements + row0 * ld, ld, rows, w.cols, lane, w.col_offset % 2, out);
    } else if (transposed) {
      pack_panel_transposed<Pair>(elements + row0, ld, rows, w.cols, out);
    } else {
      pack_panel<Pair>(elements + row0 * ld, ld, rows, w.cols, out);
    }
  }
}

void pack(const PackedMatrix& w, const void* src, int64_t ld, bool transposed, std::byte* dst, int64_t panel_begin,
          int64_t panel_end) {
  HADAL_CHECK(panel_begin >= 0 && panel_end <= w.num_panels(), "panels {} to {} of {}", panel_begin, panel_end,
              w.num_panels());
  switch (dtype_size_bytes(w.dtype)) {
    case 1:
      return pack_range<uint16_t, uint8_t>(w, src, ld, transposed, dst, panel_begin, panel_end);
    case 2:
      return pack_range<uint32_t, uint16_t>(w, src, ld, transposed, dst, panel_begin, panel_end);
    case 4:
      return pack_range<uint64_t, uint32_t>(w, src, ld, transposed, dst, panel_begin, panel_end);
    default:
      HADAL_CHECK(false, "cannot pack elements of type {}", dtype_name(w.dtype));
  }
}

}  // namespace

void pack_panels(const PackedMatrix& w, const void* src, int64_t ld, std::byte* dst, int64_t panel_begin,
                 int64_t panel_end) {
  pack(w, src, ld, /*transposed=*/false, dst, panel_begin, panel_end);
}

void pack_panels_transposed(const PackedMatrix& w, const void* src, int64_t ld, std::byte* dst, int64_t panel_begin,
                            int64_t panel_end) {
  pack(w, src, ld, /*transposed=*/true, dst, panel_begin, panel_end);
}

void pack_scales(const PackedMatrix& w, const float* src, float* dst) {
  pack_scales(w, src, w.num_scale_cols(), 0, dst);
}

void pack_scales(const PackedMatrix& w, const float* src, int64_t ld, int64_t first_row, float* dst) {
  const int64_t scale_cols = w.num_scale_cols();
  for (int64_t panel = 0; panel < w.num_panels(); ++panel) {
    const float* row = src + (first_row - w.row_offset + panel * kPanelRows) / kScaleBlock * ld;
    std::copy(row, row + scale_cols, dst + panel * scale_cols);
  }
}

int64_t row_offset_of_part(int64_t first_row, int64_t num_rows) {
  const int64_t end = first_row + num_rows;
  for (int64_t row = first_row; row < end; row += kPanelRows) {
    const int64_t last = std::min(row + kPanelRows, end) - 1;
    if (row / kScaleBlock != last / kScaleBlock) return first_row % kPanelRows;
  }
  return 0;
}

float packed_element(const PackedMatrix& w, int64_t row, int64_t col) {
  row += w.row_offset;
  col += w.col_offset % 2;
  const std::byte* panel = w.panels + row / kPanelRows * w.panel_bytes();
  const int64_t index = (col / 2 * kPanelRows + row % kPanelRows) * 2 + col % 2;
  switch (w.dtype) {
    case DType::kF8E4M3:
      return e4m3_to_f32(static_cast<uint8_t>(panel[index]));
    case DType::kBF16:
      return bf16_to_f32(reinterpret_cast<const bf16_t*>(panel)[index]);
    case DType::kF32:
      return reinterpret_cast<const float*>(panel)[index];
    default:
      HADAL_CHECK(false, "no packed matrices of type {}", dtype_name(w.dtype));
  }
}

}  // namespace hadal
