// Weight matrices in the order that the kernels read them: panels of 32 output rows, pairs of k side by side, so that
// one linear stream feeds a panel (measured 1.1x to 1.7x faster than row-major). A bijection of the checkpoint's bytes:
// codes and scales are unchanged. One layout for every ISA.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace hadal {

inline constexpr int64_t kPanelRows = 32;
// Edge of a weight scale block (config: quantization_config.weight_block_size, always [128, 128]).
inline constexpr int64_t kScaleBlock = 128;

// W [rows, cols]; y = x Wᵀ. A view: the memory belongs to the model's weight store and outlives every use.
struct PackedMatrix {
  DType dtype = DType::kBF16;  // kF8E4M3 (with scales), kBF16, or kF32 (reference numerics)
  int64_t rows = 0;            // out features
  int64_t cols = 0;            // in features
  // [num_panels][ceil(cols / 2)][32 rows][2 k] elements of dtype, 64-byte aligned; rows and cols past the end are zero.
  const std::byte* panels = nullptr;
  // kF8E4M3 only: [num_panels][ceil(cols / 128)] f32, the multiplier of each 32 x 128 piece.
  const float* scales = nullptr;
  // [num_panels * 32] f32, the multiplier of each output row; null: none. Rows past the end are 0.
  const float* row_scales = nullptr;

  int64_t num_panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  int64_t num_k_pairs() const { return (cols + 1) / 2; }
  int64_t num_scale_cols() const { return (cols + kScaleBlock - 1) / kScaleBlock; }
  int64_t panel_bytes() const { return num_k_pairs() * 2 * kPanelRows * dtype_size_bytes(dtype); }
  int64_t panels_bytes() const { return num_panels() * panel_bytes(); }
  int64_t num_scales() const { return dtype == DType::kF8E4M3 ? num_panels() * num_scale_cols() : 0; }
};

// Packs rows [32 * panel_begin, 32 * panel_end) of the row-major matrix `src` ([rows, cols] elements of w.dtype, rows
// `ld` elements apart; `src` is row 0) into `dst` = w.panels. Thread-safe for disjoint panel ranges.
void pack_panels(const PackedMatrix& w, const void* src, int64_t ld, std::byte* dst, int64_t panel_begin,
                 int64_t panel_end);

// The same from the transpose: `src` is [cols, rows] row-major, rows of src `ld` elements apart.
void pack_panels_transposed(const PackedMatrix& w, const void* src, int64_t ld, std::byte* dst, int64_t panel_begin,
                            int64_t panel_end);

// Spreads checkpoint scales [ceil(rows / 128), ceil(cols / 128)] over panels; dst has w.num_scales() floats.
void pack_scales(const PackedMatrix& w, const float* src, float* dst);

// Reads element (row, col) back, without its scale. For tests and the reference kernels.
float packed_element(const PackedMatrix& w, int64_t row, int64_t col);

}  // namespace hadal
