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
  // A part of a larger matrix keeps the borders of the whole, and with them the bits of its sums: column 0 lies
  // col_offset behind the beginning of its scale block (0 .. 127); row 0 is lane row_offset of the first panel (0 ..
  // 31), where no other cut would leave every panel inside one block.
  int64_t col_offset = 0, row_offset = 0;
  // [num_panels][num_k_pairs][32 rows][2 k] elements of dtype, 64-byte aligned; the first pair begins at an even column
  // of the whole matrix; rows and cols outside are zero.
  const std::byte* panels = nullptr;
  // kF8E4M3 only: [num_panels][num_scale_cols] f32, the multiplier of each 32 x 128 piece.
  const float* scales = nullptr;
  // [num_panels * 32] f32, the multiplier of each output row; null: none. Rows past the end are 0.
  const float* row_scales = nullptr;

  int64_t num_panels() const { return rows > 0 ? (row_offset + rows + kPanelRows - 1) / kPanelRows : 0; }
  int64_t num_k_pairs() const { return (col_offset % 2 + cols + 1) / 2; }
  int64_t num_scale_cols() const { return (col_offset + cols + kScaleBlock - 1) / kScaleBlock; }
  int64_t panel_bytes() const { return num_k_pairs() * 2 * kPanelRows * dtype_size_bytes(dtype); }
  int64_t panels_bytes() const { return num_panels() * panel_bytes(); }
  int64_t num_scales() const { return dtype == DType::kF8E4M3 ? num_panels() * num_scale_cols() : 0; }
};

// Packs the rows of panels [panel_begin, panel_end) of the row-major matrix `src` ([rows, cols] elements of w.dtype,
// rows `ld` elements apart; `src` is row 0) into `dst` = w.panels. Thread-safe for disjoint panel ranges.
void pack_panels(const PackedMatrix& w, const void* src, int64_t ld, std::byte* dst, int64_t panel_begin,
                 int64_t panel_end);

// The same from the transpose: `src` is [cols, rows] row-major, rows of src `ld` elements apart. No offsets.
void pack_panels_transposed(const PackedMatrix& w, const void* src, int64_t ld, std::byte* dst, int64_t panel_begin,
                            int64_t panel_end);

// Spreads checkpoint scales [ceil(rows / 128), ceil(cols / 128)] over panels; dst has w.num_scales() floats.
void pack_scales(const PackedMatrix& w, const float* src, float* dst);
// The same for a part of a larger matrix whose row `first_row` is row 0 of w: src is the column of the whole's scales
// that column 0 of w lies in, rows of src `ld` apart. Every panel lies inside one block of rows.
void pack_scales(const PackedMatrix& w, const float* src, int64_t ld, int64_t first_row, float* dst);
// The row_offset that a part beginning at row `first_row` of a matrix with scale blocks needs: 0 where it can be.
int64_t row_offset_of_part(int64_t first_row, int64_t num_rows);

// Reads element (row, col) back, without its scale. For tests and the reference kernels.
float packed_element(const PackedMatrix& w, int64_t row, int64_t col);

}  // namespace hadal
