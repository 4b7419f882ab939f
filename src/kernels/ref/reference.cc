#include "kernels/ref/reference.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "tensor/bf16.h"
#include "tensor/fp8.h"

namespace hadal::reference {
namespace {

float load(float x) { return x; }
float load(bf16_t x) { return bf16_to_f32(x); }
float load(uint8_t code) { return e4m3_to_f32(code); }

template <typename Element>
double dot_unscaled(const PackedMatrix& w, int64_t row, const float* x, int64_t k_begin, int64_t k_end) {
  row += w.row_offset;
  const auto* panel = reinterpret_cast<const Element*>(w.panels + row / kPanelRows * w.panel_bytes());
  const int64_t lane = row % kPanelRows;
  double sum = 0;
  for (int64_t k = k_begin; k < k_end; ++k) {
    const int64_t col = w.col_offset % 2 + k;
    sum += static_cast<double>(x[k]) * load(panel[(col / 2 * kPanelRows + lane) * 2 + col % 2]);
  }
  return sum;
}

// dot() times the scales of row `row` of the activations and of output row n.
double scaled_dot(const PackedMatrix& w, int64_t n, const float* x, const ActScales& scales, int64_t row,
                  int64_t k_begin, int64_t k_end) {
  double sum = 0;
  if (scales.scales != nullptr && scales.per_block) {
    for (int64_t k = k_begin; k < k_end;) {
      const int64_t end = std::min(k_end, (k / kScaleBlock + 1) * kScaleBlock);
      sum += dot(w, n, x, k, end) * scales.row(row)[k / kScaleBlock];
      k = end;
    }
  } else {
    sum = dot(w, n, x, k_begin, k_end);
    if (scales.scales != nullptr) sum *= scales.row(row)[0];
  }
  return w.row_scales != nullptr ? sum * w.row_scales[w.row_offset + n] : sum;
}

// Output n of token t of a LinearArgs or GateUpArgs.
template <typename Args>
double product(const PackedMatrix& w, int64_t n, const Args& a, int64_t t) {
  const int64_t row = a.x_rows ? a.x_rows[t] : t;
  return scaled_dot(w, n, static_cast<const float*>(a.x) + row * a.ldx, a.x_scales, row, 0, w.cols);
}

// Output rows of panels [panel_begin, panel_end).
struct RowRange {
  RowRange(const PackedMatrix& w, int64_t panel_begin, int64_t panel_end)
      : begin(std::max<int64_t>(panel_begin * kPanelRows - w.row_offset, 0)),
        end(std::min(panel_end * kPanelRows - w.row_offset, w.rows)) {}
  int64_t begin, end;
};

void linear(const LinearArgs& a, int64_t panel_begin, int64_t panel_end) {
  HADAL_CHECK(a.y_dtype == DType::kF32, "reference activations are F32, not {}", dtype_name(a.y_dtype));
  const RowRange rows(*a.w, panel_begin, panel_end);
  for (int64_t n = rows.begin; n < rows.end; ++n) {
    for (int64_t t = 0; t < a.num_tokens; ++t) {
      const auto y = static_cast<float>(product(*a.w, n, a, t));
      static_cast<float*>(a.y)[t * a.ldy + n] = a.round_to_bf16 ? round_to_bf16(y) : y;
    }
  }
}

void gate_up(const GateUpArgs& a, int64_t panel_begin, int64_t panel_end) {
  const RowRange rows(*a.gate, panel_begin, panel_end);
  for (int64_t n = rows.begin; n < rows.end; ++n) {
    for (int64_t t = 0; t < a.num_tokens; ++t) {
      double gate = product(*a.gate, n, a, t), up = product(*a.up, n, a, t);
      if (a.round_to_bf16) {
        gate = round_to_bf16(static_cast<float>(gate));
        up = round_to_bf16(static_cast<float>(up));
      }
      static_cast<float*>(a.h)[t * a.ldh + n] = static_cast<float>(gate / (1 + std::exp(-gate)) * up);
    }
  }
}

// Scratch: f32 [num_tokens][num_leaves] of one output row.
void down(const DownArgs& a, int64_t panel_begin, int64_t panel_end, std::byte* scratch) {
  if (a.sources.empty()) return;
  auto* leaves = reinterpret_cast<float*>(scratch);
  const RowRange rows(*a.sources.front().w, panel_begin, panel_end);
  for (int64_t n = rows.begin; n < rows.end; ++n) {
    std::fill(leaves, leaves + a.num_tokens * a.num_leaves, 0.0f);
    for (const DownSource& s : a.sources) {
      const int64_t first_leaf = std::max<int64_t>(s.leaf, 0), num_leaves = s.leaf >= 0 ? 1 : a.num_leaves;
      const int64_t leaf_cols = s.w->cols / num_leaves;
      for (int64_t i = 0; i < s.num_tokens; ++i) {
        const float* h = static_cast<const float*>(s.h) + i * s.ldh;
        float* token = leaves + (s.y_rows ? s.y_rows[i] : i) * a.num_leaves;
        const float weight = s.weights ? s.weights[i] : 1.0f;
        for (int64_t j = 0; j < num_leaves; ++j) {
          token[first_leaf + j] +=
              weight * static_cast<float>(scaled_dot(*s.w, n, h, s.h_scales, i, j * leaf_cols, (j + 1) * leaf_cols));
        }
      }
    }
    for (int64_t t = 0; t < a.num_tokens; ++t) {
      float* token = leaves + t * a.num_leaves;
      for (int64_t width = a.num_leaves; width > 1; width /= 2) {
        for (int64_t j = 0; j < width / 2; ++j) token[j] = token[2 * j] + token[2 * j + 1];
      }
      a.y[t * a.ldy + n] = token[0];
    }
  }
}

int64_t down_scratch_bytes(const DownArgs& a) {
  return a.num_tokens * a.num_leaves * static_cast<int64_t>(sizeof(float));
}

// Finished values are rounded to the output's elements.
void store(float value, float* to) { *to = value; }
void store(float value, uint8_t* to) { *to = f32_to_e4m3(value); }

template <typename Element>
void normalise(const float* x, const float* weight, int64_t dim, float eps, Element* out) {
  double squares = 0;
  for (int64_t i = 0; i < dim; ++i) squares += static_cast<double>(x[i]) * x[i];
  const double factor = 1 / std::sqrt(squares / static_cast<double>(dim) + eps);
  for (int64_t i = 0; i < dim; ++i) store(static_cast<float>(weight[i] * (x[i] * factor)), out + i);
}

template <typename Element>
void rotate(const float* in, int64_t dim, const float* cos, const float* sin, Element* out) {
  for (int64_t i = 0; i < dim / 2; ++i) {
    const double a = in[2 * i], b = in[2 * i + 1];
    store(static_cast<float>(a * cos[i] - b * sin[i]), out + 2 * i);
    store(static_cast<float>(a * sin[i] + b * cos[i]), out + 2 * i + 1);
  }
}

// By way of the codes.
void quantise_row(const QuantiseArgs& a) {
  const auto* x = static_cast<const float*>(a.x);
  auto* out = static_cast<float*>(a.out);
  const int64_t group = a.kind == QuantiseKind::kGroup ? kQuantiseGroup : std::max<int64_t>(a.n, 1);
  for (int64_t begin = 0; begin < a.n; begin += group) {
    const int64_t end = std::min(begin + group, a.n);
    float amax = 0;
    for (int64_t i = begin; i < end; ++i) amax = std::max(amax, std::fabs(x[i]));
    float scale = 1, inv = a.inv;
    if (a.kind == QuantiseKind::kToken) {
      scale = token_scale(amax, a.max_finite);
      inv = round_to_bf16(1.0f / scale);
    } else if (a.kind == QuantiseKind::kGroup) {
      scale = group_scale(amax, a.max_finite, a.pow2);
    }
    if (a.scales != nullptr && a.kind != QuantiseKind::kStatic) a.scales[begin / group] = scale;
    for (int64_t i = begin; i < end; ++i) {
      const float y = a.kind == QuantiseKind::kGroup ? x[i] / scale : x[i] * inv;
      out[i] = e4m3_to_f32(f32_to_e4m3(y, a.max_finite));
    }
  }
}

void rms_norm(const RmsNormArgs& a) { normalise(a.x, a.weight, a.dim, a.eps, static_cast<float*>(a.out)); }

void query_rope(const QueryRopeArgs& a) {
  const int64_t head_dim = a.qk_nope_head_dim + a.qk_rope_head_dim;
  for (int64_t h = 0; h < a.num_heads; ++h) {
    const float* q = a.q + h * head_dim;
    float* out = static_cast<float*>(a.out) + h * head_dim;
    std::copy(q, q + a.qk_nope_head_dim, out);
    rotate(q + a.qk_nope_head_dim, a.qk_rope_head_dim, a.cos, a.sin, out + a.qk_nope_head_dim);
  }
}

template <typename Element>
void write_latent_row(const WriteLatentArgs& a, Element* row) {
  normalise(a.kv, a.weight, a.kv_lora_rank, a.eps, row);
  rotate(a.kv + a.kv_lora_rank, a.qk_rope_head_dim, a.cos, a.sin, row + a.kv_lora_rank);
}

void write_latent(const WriteLatentArgs& a) {
  if (a.row_dtype == DType::kF8E4M3) return write_latent_row(a, static_cast<uint8_t*>(a.row));
  HADAL_CHECK(a.row_dtype == DType::kF32, "no cache of type {}", dtype_name(a.row_dtype));
  write_latent_row(a, static_cast<float*>(a.row));
}

}  // namespace

double dot(const PackedMatrix& w, int64_t row, const float* x, int64_t k_begin, int64_t k_end) {
  if (w.dtype == DType::kBF16) return dot_unscaled<bf16_t>(w, row, x, k_begin, k_end);
  if (w.dtype == DType::kF32) return dot_unscaled<float>(w, row, x, k_begin, k_end);
  HADAL_CHECK(w.dtype == DType::kF8E4M3, "no packed matrices of type {}", dtype_name(w.dtype));
  const float* scales = w.scales + (w.row_offset + row) / kPanelRows * w.num_scale_cols();
  double sum = 0;
  for (int64_t k = k_begin; k < k_end;) {
    const int64_t block = (w.col_offset + k) / kScaleBlock;
    const int64_t end = std::min(k_end, (block + 1) * kScaleBlock - w.col_offset);
    sum += dot_unscaled<uint8_t>(w, row, x, k, end) * scales[block];
    k = end;
  }
  return sum;
}

const KernelTable kTable = {
    .isa = Isa::kReference,
    .name = "reference",
    .act_dtype = DType::kF32,
    .linear = linear,
    .gate_up = gate_up,
    .down = down,
    .down_scratch_bytes = down_scratch_bytes,
    .rms_norm = rms_norm,
    .query_rope = query_rope,
    .quantise_row = quantise_row,
    .write_latent = write_latent,
    .attend_absorbed_segment = attend_absorbed_segment,
    .join_absorbed = join_absorbed,
    .finish_absorbed = finish_absorbed,
    .absorbed_partial_bytes = absorbed_partial_bytes,
    .absorbed_segment_scratch_bytes = absorbed_segment_scratch_bytes,
    .attend_expanded = attend_expanded,
    .expanded_scratch_bytes = expanded_scratch_bytes,
    .attend_expanded_part = nullptr,
    .attend_quant_expanded = attend_quant_expanded,
    .quant_expanded_scratch_bytes = quant_expanded_scratch_bytes,
    .attend_quant_absorbed = attend_quant_absorbed,
    .quant_absorbed_scratch_bytes = quant_absorbed_scratch_bytes,
};

}  // namespace hadal::reference
