#include "model/weight_fill.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "tensor/bf16.h"
#include "tensor/block_scale.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

// The whole tensor's block scales of one row of a part, from the block that holds the part's first column on.
const float* block_scales_of(const WeightSource& source, const FillScratch& scratch, int64_t row) {
  return scratch.scales.data() +
         BlockScaleLayout().scale_idx(source.to.part.rows.begin + row, source.to.part.cols.begin, source.stored_cols);
}

// The part's row scales.
const float* row_scales_of(const WeightSource& source, const FillScratch& scratch) {
  return scratch.scales.data() + source.to.part.rows.begin;
}

// Where the part's first column lies inside its scale block.
int64_t first_col_in_block(const WeightSource& source) {
  return source.to.part.cols.begin % BlockScaleLayout().block_cols;
}

// One row of codes as F32, block or row scales applied in FP32.
void dequantise_row(const WeightSource& source, const uint8_t* codes, const FillScratch& scratch, int64_t row,
                    float* out) {
  if (source.stored_row_scales) {
    const float scale = row_scales_of(source, scratch)[row];
    for (int64_t col = 0; col < source.cols; ++col) out[col] = e4m3_to_f32(codes[col]) * scale;
    return;
  }
  const float* scales = block_scales_of(source, scratch, row);
  const int64_t offset = first_col_in_block(source), block_cols = BlockScaleLayout().block_cols;
  for (int64_t col = 0; col < source.cols; ++col) {
    out[col] = e4m3_to_f32(codes[col]) * scales[(offset + col) / block_cols];
  }
}

// The same as a Gaudi does it, after its range map: bf16(bf16(code) * bf16(scale)).
void dequantise_row_on_device(const WeightSource& source, const uint8_t* codes, const FillScratch& scratch, int64_t row,
                              float* out) {
  const RangeMap map = source.numerics->range_map;
  const std::array<uint8_t, 256>& mapped = range_map_codes(map);
  const bool by_row = source.stored_row_scales;
  const float* scales = by_row ? row_scales_of(source, scratch) + row : block_scales_of(source, scratch, row);
  const int64_t block_cols = BlockScaleLayout().block_cols;
  int64_t end = by_row ? source.cols : block_cols - first_col_in_block(source);
  for (int64_t col = 0; col < source.cols; end += block_cols, ++scales) {
    const float scale = round_to_bf16(range_map_scale(map, *scales));
    for (; col < std::min(end, source.cols); ++col) out[col] = round_to_bf16(e4m3_to_f32(mapped[codes[col]]) * scale);
  }
}

// rows [row_begin, + num_rows) of a tensor as F32, scales applied.
void dequantise_rows(const WeightSource& source, const std::byte* stored, const FillScratch& scratch, int64_t row_begin,
                     int64_t num_rows, float* out) {
  const int64_t cols = source.cols;
  const bool on_device = source.numerics->mode != GaudiMode::kNone;
  for (int64_t row = 0; row < num_rows; ++row, out += cols) {
    switch (source.entry->info.dtype) {
      case DType::kF8E4M3: {
        const auto* codes = reinterpret_cast<const uint8_t*>(stored) + row * cols;
        (on_device ? dequantise_row_on_device : dequantise_row)(source, codes, scratch, row_begin + row, out);
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

float largest_magnitude(const bf16_t* values, int64_t count) {
  uint16_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max<uint16_t>(largest, values[i].bits & 0x7FFF);
  return bf16_to_f32({largest});
}

// Codes of BF16 rows in scratch.codes, their scales in scratch.row_scales. A row of zeros has scale 0 and codes 0.
void requantise_rows(const NumericsPlan& numerics, const bf16_t* values, int64_t num_rows, int64_t cols,
                     std::optional<float> module_amax, FillScratch& scratch) {
  const float max_finite = full_scale(numerics.range);
  scratch.codes.resize(static_cast<size_t>(num_rows * cols));
  scratch.row_scales.resize(static_cast<size_t>(num_rows));
  for (int64_t row = 0; row < num_rows; ++row) {
    const bf16_t* from = values + row * cols;
    uint8_t* codes = scratch.codes.data() + row * cols;
    const float amax = module_amax ? *module_amax : largest_magnitude(from, cols);
    const StaticScale scale = numerics.fixed_weight_scale.value_or(scale_from_amax(amax, numerics.weight_rule));
    scratch.row_scales[static_cast<size_t>(row)] = scale.scale;
    if (scale.scale == 0) {
      std::fill(codes, codes + cols, uint8_t{0});
      continue;
    }
    for (int64_t col = 0; col < cols; ++col) codes[col] = f32_to_e4m3(bf16_to_f32(from[col]) * scale.inv, max_finite);
  }
}

// Rows from row_begin of a matrix with row scales, given as codes.
void pack_row_scaled(const PackedMatrix& matrix, const uint8_t* codes, const float* row_scales, int64_t row_begin,
                     int64_t num_rows) {
  PackedMatrix part = matrix;
  part.rows = num_rows;
  const int64_t panel = row_begin / kPanelRows;
  pack_panels(part, codes, matrix.cols, writable(matrix.panels + panel * matrix.panel_bytes()), 0, part.num_panels());
  float* block_scales = const_cast<float*>(matrix.scales) + panel * matrix.num_scale_cols();
  std::fill_n(block_scales, part.num_panels() * matrix.num_scale_cols(), 1.0f);
  std::copy_n(row_scales, num_rows, const_cast<float*>(matrix.row_scales) + row_begin);
}

void fill_row_scaled(const WeightSource& source, const std::byte* stored, FillScratch& scratch, int64_t row_begin,
                     int64_t num_rows, std::optional<float> module_amax) {
  const PackedMatrix& matrix = *source.to.matrix;
  if (!source.is_requantised()) {
    pack_row_scaled(matrix, reinterpret_cast<const uint8_t*>(stored), row_scales_of(source, scratch) + row_begin,
                    row_begin, num_rows);
    return;
  }
  const std::byte* values = rows_as(source, stored, scratch, DType::kBF16, row_begin, num_rows);
  requantise_rows(*source.numerics, reinterpret_cast<const bf16_t*>(values), num_rows, source.cols, module_amax,
                  scratch);
  pack_row_scaled(matrix, scratch.codes.data(), scratch.row_scales.data(), row_begin, num_rows);
}

void fill_matrix(const WeightSource& source, const std::byte* stored, FillScratch& scratch, int64_t row_begin,
                 int64_t num_rows) {
  const PackedMatrix& matrix = *source.to.matrix;
  const std::byte* rows = rows_as(source, stored, scratch, matrix.dtype, row_begin, num_rows);
  PackedMatrix part = matrix;
  part.rows = num_rows;
  if (row_begin > 0) part.row_offset = 0;
  const std::byte* panels = matrix.panels + (matrix.row_offset + row_begin) / kPanelRows * matrix.panel_bytes();
  pack_panels(part, rows, source.cols, writable(panels), 0, part.num_panels());
  if (matrix.dtype == DType::kF8E4M3 && row_begin == 0) {
    const int64_t ld = (source.stored_cols + kScaleBlock - 1) / kScaleBlock;
    pack_scales(matrix, scratch.scales.data() + source.to.part.cols.begin / kScaleBlock, ld, source.to.part.rows.begin,
                const_cast<float*>(matrix.scales));
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

// The FP8 copies of heads; after fill_heads().
void fill_heads_f8(const WeightSource& source, const std::byte* stored, FillScratch& scratch, int64_t row_begin,
                   int64_t num_rows, std::optional<float> module_amax) {
  const uint8_t* codes = reinterpret_cast<const uint8_t*>(stored);
  const float* row_scales = row_scales_of(source, scratch) + row_begin;
  if (source.is_requantised()) {
    const std::byte* values = rows_as(source, stored, scratch, DType::kBF16, row_begin, num_rows);
    requantise_rows(*source.numerics, reinterpret_cast<const bf16_t*>(values), num_rows, source.cols, module_amax,
                    scratch);
    codes = scratch.codes.data();
    row_scales = scratch.row_scales.data();
  }
  for (int64_t row = 0; row < num_rows; row += source.row_unit) {
    const HeadWeights& head = (*source.to.heads)[static_cast<size_t>((row_begin + row) / source.row_unit)];
    const int64_t v_row = row + head.w_uk.rows;
    pack_row_scaled(head.w_uk_f8, codes + row * source.cols, row_scales + row, 0, head.w_uk.rows);
    pack_row_scaled(head.w_uv_f8, codes + v_row * source.cols, row_scales + v_row, 0, head.w_uv.rows);
  }
}

}  // namespace

bool WeightSource::is_requantised() const {
  const bool to_row_f8 = to.matrix != nullptr ? to.matrix->row_scales != nullptr
                                              : to.heads != nullptr && to.heads->front().w_uk_f8.rows > 0;
  return to_row_f8 && !(entry->info.dtype == DType::kF8E4M3 && stored_row_scales);
}

float largest_weight(const WeightSource& source, const std::byte* stored, int64_t row_begin, int64_t num_rows,
                     FillScratch& scratch) {
  const std::byte* values = rows_as(source, stored, scratch, DType::kBF16, row_begin, num_rows);
  return largest_magnitude(reinterpret_cast<const bf16_t*>(values), num_rows * source.cols);
}

void fill_weights(const WeightSource& source, const std::byte* stored, int64_t row_begin, int64_t num_rows,
                  FillScratch& scratch, std::optional<float> module_amax) {
  if (source.to.rows != nullptr) {
    std::memcpy(source.to.rows + row_begin * source.row_bytes(), stored,
                static_cast<size_t>(num_rows * source.row_bytes()));
  }
  if (source.to.matrix != nullptr && source.to.matrix->row_scales != nullptr) {
    fill_row_scaled(source, stored, scratch, row_begin, num_rows, module_amax);
  } else if (source.to.matrix != nullptr) {
    fill_matrix(source, stored, scratch, row_begin, num_rows);
  }
  if (source.to.heads != nullptr) {
    fill_heads(source, stored, scratch, row_begin, num_rows);
    if (source.to.heads->front().w_uk_f8.rows > 0) {
      fill_heads_f8(source, stored, scratch, row_begin, num_rows, module_amax);
    }
  }
  if (source.to.vector != nullptr) {
    dequantise_rows(source, stored, scratch, row_begin, num_rows, source.to.vector);
    if (source.numerics->bf16_results) {
      for (int64_t i = 0; i < source.cols; ++i) source.to.vector[i] = round_to_bf16(source.to.vector[i]);
    }
  }
}

}  // namespace hadal
