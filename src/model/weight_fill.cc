#include "model/weight_fill.h"

#include <cstring>

#include "base/check.h"
#include "tensor/bf16.h"
#include "tensor/block_scale.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

// rows [row_begin, + num_rows) of a tensor as F32, scales applied.
void dequantise_rows(const WeightSource& source, const std::byte* stored, const FillScratch& scratch, int64_t row_begin,
                     int64_t num_rows, float* out) {
  const BlockScaleLayout layout;
  const int64_t cols = source.cols;
  for (int64_t row = 0; row < num_rows; ++row, out += cols) {
    switch (source.entry->info.dtype) {
      case DType::kF8E4M3: {
        const auto* codes = reinterpret_cast<const uint8_t*>(stored) + row * cols;
        const float* scales = scratch.scales.data() + layout.scale_idx(row_begin + row, 0, cols);
        for (int64_t col = 0; col < cols; ++col) out[col] = e4m3_to_f32(codes[col]) * scales[col / layout.block_cols];
        break;
      }
      case DType::kBF16: {
        const auto* values = reinterpret_cast<const bf16_t*>(stored) + row * cols;
        for (int64_t col = 0; col < cols; ++col) out[col] = bf16_to_f32(values[col]);
        break;
      }
      case DType::kF32:
        std::memcpy(out, stored + row * source.row_bytes(), static_cast<size_t>(source.row_bytes()));
        break;
      default:
        HADAL_CHECK(false, "{} was not checked", source.entry->info.name);
    }
  }
}

// The rows in `dtype`, converted when they are stored otherwise.
const std::byte* rows_as(const WeightSource& source, const std::byte* stored, FillScratch& scratch, DType dtype,
                         int64_t row_begin, int64_t num_rows) {
  if (source.entry->info.dtype == dtype) return stored;
  const size_t count = static_cast<size_t>(num_rows * source.cols);
  scratch.converted.resize(count * sizeof(float));
  auto* values = reinterpret_cast<float*>(scratch.converted.data());
  dequantise_rows(source, stored, scratch, row_begin, num_rows, values);
  if (dtype == DType::kF32) return scratch.converted.data();
  HADAL_CHECK(dtype == DType::kBF16, "{}: no conversion to {}", source.entry->info.name, dtype_name(dtype));
  // In place: element i of the result lies at or before element i of the source.
  for (size_t i = 0; i < count; ++i) {
    const bf16_t rounded = f32_to_bf16(values[i]);
    std::memcpy(scratch.converted.data() + i * sizeof(bf16_t), &rounded, sizeof(rounded));
  }
  return scratch.converted.data();
}

std::byte* writable(const std::byte* arena_memory) { return const_cast<std::byte*>(arena_memory); }

void fill_matrix(const WeightSource& source, const std::byte* stored, FillScratch& scratch, int64_t row_begin,
                 int64_t num_rows) {
  const PackedMatrix& matrix = *source.to.matrix;
  const std::byte* rows = rows_as(source, stored, scratch, matrix.dtype, row_begin, num_rows);
  PackedMatrix part = matrix;
  part.rows = num_rows;
  const std::byte* panels = matrix.panels + row_begin / kPanelRows * matrix.panel_bytes();
  pack_panels(part, rows, source.cols, writable(panels), 0, part.num_panels());
  if (matrix.dtype == DType::kF8E4M3 && row_begin == 0) {
    pack_scales(matrix, scratch.scales.data(), const_cast<float*>(matrix.scales));
  }
}

void fill_heads(const WeightSource& source, const std::byte* stored, FillScratch& scratch, int64_t row_begin,
                int64_t num_rows) {
  std::vector<HeadWeights>& heads = *source.to.heads;
  const DType dtype = heads[0].w_uk.dtype;
  const int64_t row_bytes = source.cols * static_cast<int64_t>(dtype_size_bytes(dtype));
  const std::byte* rows = rows_as(source, stored, scratch, dtype, row_begin, num_rows);
  for (int64_t row = 0; row < num_rows; row += source.row_unit, rows += source.row_unit * row_bytes) {
    const HeadWeights& head = heads[static_cast<size_t>((row_begin + row) / source.row_unit)];
    pack_panels(head.w_uk, rows, source.cols, writable(head.w_uk.panels), 0, head.w_uk.num_panels());
    pack_panels_transposed(head.w_uk_t, rows, source.cols, writable(head.w_uk_t.panels), 0, head.w_uk_t.num_panels());
    pack_panels(head.w_uv, rows + head.w_uk.rows * row_bytes, source.cols, writable(head.w_uv.panels), 0,
                head.w_uv.num_panels());
  }
}

}  // namespace

void fill_weights(const WeightSource& source, const std::byte* stored, int64_t row_begin, int64_t num_rows,
                  FillScratch& scratch) {
  if (source.to.rows != nullptr) {
    std::memcpy(source.to.rows + row_begin * source.row_bytes(), stored,
                static_cast<size_t>(num_rows * source.row_bytes()));
  }
  if (source.to.matrix != nullptr) fill_matrix(source, stored, scratch, row_begin, num_rows);
  if (source.to.heads != nullptr) fill_heads(source, stored, scratch, row_begin, num_rows);
  if (source.to.vector != nullptr) dequantise_rows(source, stored, scratch, row_begin, num_rows, source.to.vector);
}

}  // namespace hadal
