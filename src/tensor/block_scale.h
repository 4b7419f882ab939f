// Where the scale of a block-quantised weight lies. DeepSeek's FP8 checkpoints: for "X.weight" [rows, cols] F8_E4M3
// there is "X.weight_scale_inv" [ceil(rows/128), ceil(cols/128)] F32, and (despite "inv")
//   weight[i, j] = decode(code[i, j]) * scale[i / 128, j / 128].
// Blocks are aligned to the full tensor; the last one may be ragged.
#pragma once

#include <cstdint>

#include "tensor/tensor_view.h"

namespace hadal {

struct BlockScaleLayout {
  int64_t block_rows = 128;  // > 0; config.json: quantization_config.weight_block_size
  int64_t block_cols = 128;

  int64_t num_row_blocks(int64_t rows) const { return rows / block_rows + (rows % block_rows != 0); }
  int64_t num_col_blocks(int64_t cols) const { return cols / block_cols + (cols % block_cols != 0); }

  // Shape of the scale tensor of a [rows, cols] weight.
  Shape scale_shape(int64_t rows, int64_t cols) const { return {num_row_blocks(rows), num_col_blocks(cols)}; }

  // Flat row-major index of the scale of element (row, col) of a weight with `cols` columns.
  int64_t scale_idx(int64_t row, int64_t col, int64_t cols) const {
    return (row / block_rows) * num_col_blocks(cols) + col / block_cols;
  }

  friend bool operator==(const BlockScaleLayout&, const BlockScaleLayout&) = default;
};

}  // namespace hadal
