#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/drivers.h"

namespace hadal::cpu {
namespace {

static_assert(kLanes == kPanelRows && kBlockCols == kScaleBlock);

// Pointers to the activations of one token group.
struct TokenGroup {
  const bf16_t* x[kMaxTokens];

  TokenGroup(const void* base, int64_t ldx, const int32_t* x_rows, int64_t first, int64_t count) {
    for (int64_t t = 0; t < count; ++t) {
      const int64_t row = x_rows ? x_rows[first + t] : first + t;
      x[t] = static_cast<const bf16_t*>(base) + row * ldx;
    }
  }
};

}  // namespace

void prefetch_panel_start(const PackedMatrix& w, int64_t panel) {
  constexpr int64_t kLineBytes = 64;
  const int64_t bytes = std::min<int64_t>(4096, w.panel_bytes());
  const std::byte* start = w.panels + panel * w.panel_bytes();
  for (int64_t at = 0; at < bytes; at += kLineBytes) __builtin_prefetch(start + at);
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
  primitives_for(p, w.dtype)
      .dot({.panel = w.panels + panel * w.panel_bytes(),
            .scales = panel_scales(w, panel),
            .k_begin = 0,
            .k_end = w.cols,
            .x = x,
            .num_tokens = num_tokens,
            .out = out,
            .prefetch_bytes = kernel_tuning().prefetch_bytes,
            .num_rows = std::min(kLanes, w.rows - panel * kLanes)});
}

void linear(const Primitives& p, const LinearArgs& a, int64_t panel_begin, int64_t panel_end) {
  alignas(64) float out[kMaxTokens * kLanes];
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    const int64_t row0 = panel * kLanes;
    const int64_t rows = std::min(kLanes, a.w->rows - row0);
    for (int64_t first = 0; first < a.num_tokens;) {
      const int64_t count = next_group(p, a.num_tokens - first);
      const TokenGroup group(a.x, a.ldx, a.x_rows, first, count);
      dot_panel(p, *a.w, panel, group.x, count, out);
      for (int64_t t = 0; t < count; ++t) {
        const int64_t at = (first + t) * a.ldy + row0;
        if (a.y_dtype == DType::kF32) {
          std::memcpy(static_cast<float*>(a.y) + at, out + t * kLanes, rows * sizeof(float));
        } else {
          p.round_row(out + t * kLanes, rows, static_cast<bf16_t*>(a.y) + at);
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
    const int64_t row0 = panel * kLanes;
    const int64_t rows = std::min(kLanes, a.gate->rows - row0);
    if (a.num_tokens > 0) prefetch_panel_start(*a.up, panel);
    for (int64_t first = 0; first < a.num_tokens;) {
      const int64_t count = next_group(p, a.num_tokens - first);
      const TokenGroup group(a.x, a.ldx, a.x_rows, first, count);
      dot_panel(p, *a.gate, panel, group.x, count, gate);
      if (panel + 1 < panel_end && first == 0) prefetch_panel_start(*a.gate, panel + 1);
      dot_panel(p, *a.up, panel, group.x, count, up);
      for (int64_t t = 0; t < count; ++t) {
        bf16_t* h = static_cast<bf16_t*>(a.h) + (first + t) * a.ldh + row0;
        p.silu_mul(gate + t * kLanes, up + t * kLanes, rows, h);
      }
      first += count;
    }
  }
}

}  // namespace hadal::cpu
