#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/drivers.h"

namespace hadal::cpu {
namespace {

static_assert(kLanes == kPanelRows && kBlockCols == kScaleBlock);

// Pointers to the activations of one token group and to their scales.
struct TokenGroup {
  const bf16_t* x[kMaxTokens];
  const float* scales[kMaxTokens];

  template <typename Args>
  TokenGroup(const Args& a, const PackedMatrix& w, int64_t first, int64_t count) {
    for (int64_t t = 0; t < count; ++t) {
      const int64_t row = a.x_rows ? a.x_rows[first + t] : first + t;
      x[t] = row_origin(w, static_cast<const bf16_t*>(a.x) + row * a.ldx);
      if (a.x_scales.scales != nullptr) scales[t] = a.x_scales.row(row);
    }
  }
};

void round_values(float* values, int64_t n) {
  for (int64_t i = 0; i < n; ++i) values[i] = round_to_bf16(values[i]);
}

// dot_panel() of a token group, scales of activations and rows applied.
void dot_group(const Primitives& p, const PackedMatrix& w, int64_t panel, const TokenGroup& group, int64_t count,
               const ActScales& scales, float* out) {
  if (!is_scaled(w, scales)) return dot_panel(p, w, panel, group.x, count, out);
  dot_scaled(p, w, panel, {.x = group.x, .scales = group.scales, .num_tokens = count}, scales, 0, w.cols, out);
}

}  // namespace

void prefetch_panel_start(const PackedMatrix& w, int64_t panel) {
  constexpr int64_t kLineBytes = 64;
  const int64_t bytes = std::min<int64_t>(4096, w.panel_bytes());
  const std::byte* start = w.panels + panel * w.panel_bytes();
  for (int64_t at = 0; at < bytes; at += kLineBytes) __builtin_prefetch(start + at);
}

const std::byte* panel_origin(const PackedMatrix& w, int64_t panel) {
  const auto pair_bytes = 2 * kLanes * static_cast<int64_t>(dtype_size_bytes(w.dtype));
  const auto at = reinterpret_cast<uintptr_t>(w.panels + panel * w.panel_bytes());
  return reinterpret_cast<const std::byte*>(at - static_cast<uintptr_t>(w.col_offset / 2 * pair_bytes));
}

const bf16_t* row_origin(const PackedMatrix& w, const bf16_t* x) {
  return reinterpret_cast<const bf16_t*>(reinterpret_cast<uintptr_t>(x) -
                                         static_cast<uintptr_t>(w.col_offset) * sizeof(bf16_t));
}

const DotPrimitives& primitives_for(const Primitives& p, DType dtype) {
  if (dtype == DType::kF8E4M3) return p.f8;
  if (dtype == DType::kBF16) return p.bf16;
  HADAL_CHECK(dtype == DType::kF32, "no packed matrices of type {}", dtype_name(dtype));
  return p.f32;
}

const float* panel_scales(const PackedMatrix& w, int64_t panel) {
  return w.dtype == DType::kF8E4M3 ? w.scales + panel * w.num_scale_cols() : nullptr;
}

void dot_panel(const Primitives& p, const PackedMatrix& w, int64_t panel, const bf16_t* const* x, int64_t num_tokens,
               float* out) {
  const PanelRows rows = rows_of_panel(w, panel);
  primitives_for(p, w.dtype)
      .dot({.panel = panel_origin(w, panel),
            .scales = panel_scales(w, panel),
            .k_begin = w.col_offset,
            .k_end = w.col_offset + w.cols,
            .x = x,
            .num_tokens = num_tokens,
            .out = out,
            .prefetch_bytes = kernel_tuning().prefetch_bytes,
            .num_rows = rows.lane + rows.count});
}

bool is_scaled(const PackedMatrix& w, const ActScales& scales) {
  return w.row_scales != nullptr || scales.scales != nullptr;
}

void dot_scaled(const Primitives& p, const PackedMatrix& w, int64_t panel, const ScaledTokens& tokens,
                const ActScales& scales, int64_t k_begin, int64_t k_end, float* out) {
  const bool per_block = scales.scales != nullptr && scales.per_block;
  const PanelRows rows = rows_of_panel(w, panel);
  DotArgs dot = {.panel = panel_origin(w, panel),
                 .scales = panel_scales(w, panel),
                 .k_begin = w.col_offset + k_begin,
                 .k_end = w.col_offset + k_end,
                 .x = tokens.x,
                 .num_tokens = tokens.num_tokens,
                 .out = out,
                 .prefetch_bytes = kernel_tuning().prefetch_bytes,
                 .num_rows = rows.lane + rows.count};
  if (per_block) {
    alignas(64) float block[kMaxTokens * kLanes];
    dot.out = block;
    std::fill(out, out + tokens.num_tokens * kLanes, 0.0f);
    for (int64_t k = k_begin, end; k < k_end; k = end) {
      end = std::min(k_end, (k / kBlockCols + 1) * kBlockCols);
      dot.k_begin = w.col_offset + k;
      dot.k_end = w.col_offset + end;
      primitives_for(p, w.dtype).dot(dot);
      for (int64_t t = 0; t < tokens.num_tokens; ++t) {
        const float scale = tokens.scales[t][k / kBlockCols];
        for (int64_t r = t * kLanes; r < (t + 1) * kLanes; ++r) out[r] += block[r] * scale;
      }
    }
  } else {
    primitives_for(p, w.dtype).dot(dot);
  }
  for (int64_t t = 0; t < tokens.num_tokens; ++t) {
    float* sums = out + t * kLanes;
    const float scale = scales.scales != nullptr && !per_block ? tokens.scales[t][0] : 1.0f;
    for (int64_t r = 0; r < kLanes; ++r) sums[r] *= scale;
    if (w.row_scales == nullptr) continue;
    const float* row_scales = w.row_scales + panel * kLanes;
    for (int64_t r = 0; r < kLanes; ++r) sums[r] *= row_scales[r];
  }
}

void linear(const Primitives& p, const LinearArgs& a, int64_t panel_begin, int64_t panel_end) {
  alignas(64) float out[kMaxTokens * kLanes];
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const PanelRows rows = rows_of_panel(*a.w, panel);
    for (int64_t first = 0; first < a.num_tokens;) {
      const int64_t count = next_group(p, a.num_tokens - first);
      const TokenGroup group(a, *a.w, first, count);
      dot_group(p, *a.w, panel, group, count, a.x_scales, out);
      if (a.round_to_bf16) round_values(out, count * kLanes);
      for (int64_t t = 0; t < count; ++t) {
        const int64_t at = (first + t) * a.ldy + rows.row;
        const float* sums = out + t * kLanes + rows.lane;
        if (a.y_dtype == DType::kF32) {
          std::memcpy(static_cast<float*>(a.y) + at, sums, rows.count * sizeof(float));
        } else {
          p.round_row(sums, rows.count, static_cast<bf16_t*>(a.y) + at);
        }
      }
      first += count;
    }
  }
}

void gate_up(const Primitives& p, const GateUpArgs& a, int64_t panel_begin, int64_t panel_end) {
  alignas(64) float gate[kMaxTokens * kLanes];
  alignas(64) float up[kMaxTokens * kLanes];
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const PanelRows rows = rows_of_panel(*a.gate, panel);
    if (a.num_tokens > 0) prefetch_panel_start(*a.up, panel);
    for (int64_t first = 0; first < a.num_tokens;) {
      const int64_t count = next_group(p, a.num_tokens - first);
      const TokenGroup group(a, *a.gate, first, count);
      dot_group(p, *a.gate, panel, group, count, a.x_scales, gate);
      if (panel + 1 < panel_end && first == 0) prefetch_panel_start(*a.gate, panel + 1);
      dot_group(p, *a.up, panel, group, count, a.x_scales, up);
      if (a.round_to_bf16) {
        round_values(gate, count * kLanes);
        round_values(up, count * kLanes);
      }
      for (int64_t t = 0; t < count; ++t) {
        bf16_t* h = static_cast<bf16_t*>(a.h) + (first + t) * a.ldh + rows.row;
        p.silu_mul(gate + t * kLanes + rows.lane, up + t * kLanes + rows.lane, rows.count, h);
      }
      first += count;
    }
  }
}

}  // namespace hadal::cpu
