// What both FP8 attention drivers share. They work on panels of 32 lanes with the linear kernel and the value product
// of the BF16 attention: codes are exact in BF16, and so are their products in FP32. What lies between is plain code
// that is the same for every table.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/cpu/attention_rows.h"
#include "tensor/fp8.h"

namespace hadal::cpu {

inline constexpr float kNoScore = -std::numeric_limits<float>::infinity();

inline void cast_row(const bf16_t* x, int64_t n, float inv, float max_finite, bf16_t* out) {
  quantise_row({.kind = QuantiseKind::kStatic, .max_finite = max_finite, .inv = inv, .x = x, .n = n, .out = out});
}

inline float cast_value(float value, float inv, float max_finite) {
  return e4m3_to_f32(f32_to_e4m3(value * inv, max_finite));
}

using CodeValues = std::array<bf16_t, 256>;

// What the codes of a cache with a scale stand for.
inline CodeValues cache_values(float cache_scale) {
  CodeValues values;
  for (size_t code = 0; code < values.size(); ++code) {
    values[code] = f32_to_bf16(e4m3_to_f32(static_cast<uint8_t>(code)) * cache_scale);
  }
  return values;
}

// scores [num_keys][32] = the packed queries times the keys.
inline void multiply_keys(const Primitives& p, const bf16_t* query_panel, int64_t num_lanes,
                          const bf16_t* const* key_rows, int64_t num_keys, int64_t key_cols, float* scores) {
  for (int64_t first = 0; first < num_keys;) {
    const int64_t count = next_group(p, num_keys - first);
    p.bf16.dot({.panel = query_panel,
                .scales = nullptr,
                .k_begin = 0,
                .k_end = key_cols,
                .x = key_rows + first,
                .num_tokens = count,
                .out = scores + first * kLanes,
                .prefetch_bytes = 0,
                .num_rows = num_lanes});
    first += count;
  }
}

// Writes the weights of one key for all 32 lanes into a packed panel (SoftmaxArgs::weights).
inline void put_weights(bf16_t* weights, int64_t key, const bf16_t* of_lanes) {
  bf16_t* to = weights + key / 2 * 2 * kLanes + key % 2;
  for (int64_t lane = 0; lane < kLanes; ++lane) to[2 * lane] = of_lanes[lane];
}

// out[l][c] += the keys' values times their weights, for lanes [0, num_lanes), rounded up to kValueLanes: out has
// kLanes rows, ld elements apart. num_keys: at most kAttentionSegment.
inline void add_weighted_values(const Primitives& p, const bf16_t* weights, const bf16_t* const* values,
                                int64_t num_keys, int64_t num_lanes, int64_t num_cols, float* out, int64_t ld) {
  alignas(64) float sums[kValueLanes * kLanes];
  for (int64_t col = 0; col < num_cols; col += kLanes) {
    const int64_t cols = std::min(kLanes, num_cols - col);
    for (int64_t lane = 0; lane < num_lanes; lane += kValueLanes) {
      p.weighted_values({.weights = weights,
                         .num_keys = num_keys,
                         .lane_begin = lane,
                         .values = values,
                         .col_begin = col,
                         .num_cols = cols,
                         .out = sums});
      for (int64_t l = 0; l < kValueLanes; ++l) {
        float* to = out + (lane + l) * ld + col;
        for (int64_t c = 0; c < cols; ++c) to[c] += sums[l * kLanes + c];
      }
    }
  }
}

}  // namespace hadal::cpu
