#include "kernels/cpu/portable.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/cpu/drivers.h"
#include "kernels/cpu/tables.h"
#include "tensor/bf16.h"
#include "tensor/fp8.h"

namespace hadal::cpu {
namespace portable {
namespace {

float load(float x) { return x; }
float load(bf16_t x) { return bf16_to_f32(x); }
float load(uint8_t code) { return e4m3_to_f32(code); }

// w[k - k_begin][row] = panel elements of columns [k_begin, k_end), without scale.
template <typename Element>
void decode(const Element* panel, int64_t k_begin, int64_t k_end, float (*w)[kLanes]) {
  for (int64_t k = k_begin; k < k_end; ++k) {
    const Element* pairs = panel + k / 2 * kLanes * 2 + k % 2;
    for (int64_t r = 0; r < kLanes; ++r) w[k - k_begin][r] = load(pairs[2 * r]);
  }
}

// acc[row] += sum over k of x[k] * w[k][row], k ascending. Half the rows at a time: 16 sums fit in SSE registers.
void accumulate(const bf16_t* x, const float (*w)[kLanes], int64_t num_k, float* acc) {
  constexpr int64_t kHalf = kLanes / 2;
  for (int64_t row0 = 0; row0 < kLanes; row0 += kHalf) {
    float sums[kHalf];
    std::copy(acc + row0, acc + row0 + kHalf, sums);
    for (int64_t k = 0; k < num_k; ++k) {
      const float factor = bf16_to_f32(x[k]);
      for (int64_t r = 0; r < kHalf; ++r) sums[r] += factor * w[k][row0 + r];
    }
    std::copy(sums, sums + kHalf, acc + row0);
  }
}

// A 128-wide piece is decoded once for the group; each token then adds it in the same order.
template <typename Element>
void dot(const DotArgs& a) {
  const auto* panel = static_cast<const Element*>(a.panel);
  std::fill(a.out, a.out + a.num_tokens * kLanes, 0.0f);
  for (int64_t k = a.k_begin; k < a.k_end;) {
    const int64_t end = std::min(a.k_end, (k / kBlockCols + 1) * kBlockCols);
    alignas(64) float w[kBlockCols][kLanes];
    decode(panel, k, end, w);
    for (int64_t t = 0; t < a.num_tokens; ++t) {
      float* total = a.out + t * kLanes;
      if (a.scales) {
        alignas(64) float sums[kLanes] = {};
        accumulate(a.x[t] + k, w, end - k, sums);
        const float scale = a.scales[k / kBlockCols];
        for (int64_t r = 0; r < kLanes; ++r) total[r] += sums[r] * scale;
      } else {
        accumulate(a.x[t] + k, w, end - k, total);
      }
    }
    k = end;
  }
}

template <typename Element>
void add_leaves(const LeavesArgs& a) {
  alignas(64) float partial[kMaxTokens * kLanes];
  for (int64_t leaf = 0; leaf < a.num_leaves; ++leaf) {
    dot<Element>({.panel = a.panel,
                  .scales = a.scales,
                  .k_begin = a.k_begin + leaf * a.leaf_cols,
                  .k_end = a.k_begin + (leaf + 1) * a.leaf_cols,
                  .x = a.x,
                  .num_tokens = a.num_tokens,
                  .out = partial});
    for (int64_t t = 0; t < a.num_tokens; ++t) {
      float* sum = a.sums[t] + leaf * kLanes;
      for (int64_t r = 0; r < kLanes; ++r) sum[r] += a.weights[t] * partial[t * kLanes + r];
    }
  }
}

// e^x for x <= 89, relative error below 2e-7; 0 below -87, exactly 1 at 0. NaN stays NaN.
float exp_f32(float x) {
  constexpr float kLog2e = 1.44269504f;
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;  // the product with an integer < 2^9 is exact
  constexpr float kRound = 12582912.0f;                                // 1.5 * 2^23: the addition rounds to an integer
  if (x < -87.0f) return 0.0f;
  const float n = (x * kLog2e + kRound) - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float e = 1.0f / 5040;
  e = e * r + 1.0f / 720;
  e = e * r + 1.0f / 120;
  e = e * r + 1.0f / 24;
  e = e * r + 1.0f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  // Two factors, since 2^128 alone is no float.
  const auto power = [](int32_t exponent) { return std::bit_cast<float>((exponent + 127) << 23); };
  const int32_t exponent = static_cast<int32_t>(n == n ? n : 0);
  return e * power(exponent / 2) * power(exponent - exponent / 2);
}

}  // namespace

void dot_f32(const DotArgs& args) { dot<float>(args); }
void add_leaves_f32(const LeavesArgs& args) { add_leaves<float>(args); }

void silu_mul(const float* gate, const float* up, int64_t n, bf16_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const float exponent = -gate[i] > 89.0f ? 89.0f : -gate[i];
    out[i] = f32_to_bf16(gate[i] / (1.0f + exp_f32(exponent)) * up[i]);
  }
}

void round_row(const float* in, int64_t n, bf16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = f32_to_bf16(in[i]);
}

void decode_f8_row(const uint8_t* codes, int64_t n, bf16_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = e4m3_to_bf16(codes[i]);
}

void softmax_segment(const SoftmaxArgs& a) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  float segment_max[kLanes], segment_sum[kLanes] = {};
  std::fill(segment_max, segment_max + kLanes, kNone);
  for (int64_t t = 0; t < a.num_keys; ++t) {
    for (int64_t l = 0; l < kLanes; ++l) {
      const float score = a.scores[t * kLanes + l] * a.scale;
      if (t < a.limits[l] && score > segment_max[l]) segment_max[l] = score;
    }
  }
  const int64_t padded_keys = (a.num_keys + 1) / 2 * 2;
  for (int64_t t = 0; t < padded_keys; ++t) {
    for (int64_t l = 0; l < kLanes; ++l) {
      bf16_t weight;
      if (t < a.num_keys && t < a.limits[l]) {
        weight = f32_to_bf16(exp_f32(a.scores[t * kLanes + l] * a.scale - segment_max[l]));
        segment_sum[l] += bf16_to_f32(weight);
      }
      a.weights[(t / 2 * kLanes + l) * 2 + t % 2] = weight;
    }
  }
  std::copy(segment_max, segment_max + kLanes, a.max);
  std::copy(segment_sum, segment_sum + kLanes, a.sum);
}

void weighted_values(const ValuesArgs& a) {
  std::fill(a.out, a.out + kValueLanes * kLanes, 0.0f);
  for (int64_t t = 0; t < a.num_keys; ++t) {
    float value[kLanes] = {};
    for (int64_t c = 0; c < a.num_cols; ++c) value[c] = bf16_to_f32(a.values[t][a.col_begin + c]);
    for (int64_t l = 0; l < kValueLanes; ++l) {
      const float weight = bf16_to_f32(a.weights[(t / 2 * kLanes + a.lane_begin + l) * 2 + t % 2]);
      float* out = a.out + l * kLanes;
      for (int64_t c = 0; c < kLanes; ++c) out[c] += weight * value[c];
    }
  }
}

namespace {
constexpr Primitives kPrimitives = {.max_group = kRegisterTokens,
                                    .group_unit = 1,
                                    .f8 = {dot<uint8_t>, add_leaves<uint8_t>},
                                    .bf16 = {dot<bf16_t>, add_leaves<bf16_t>},
                                    .f32 = {dot_f32, add_leaves_f32},
                                    .silu_mul = silu_mul,
                                    .round_row = round_row,
                                    .decode_f8_row = decode_f8_row,
                                    .softmax_segment = softmax_segment,
                                    .weighted_values = weighted_values};
constexpr KernelTable kTable = make_table<kPrimitives>(Isa::kPortable, "portable");
}  // namespace

}  // namespace portable

const KernelTable& portable_table() { return portable::kTable; }

}  // namespace hadal::cpu
