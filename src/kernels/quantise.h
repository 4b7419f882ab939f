// Rows of activations to the grid of FP8 E4M3. The result holds the codes' values in the act dtype (every code is exact
// in BF16), so that the linears of kernels.h run on it as on any row; what the values were divided by goes to `scales`,
// for ActScales. Every step is defined to the bit: all tables give the same values and scales for the same input.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tensor/bf16.h"

namespace hadal {

enum class QuantiseKind : uint8_t {
  kStatic,  // cast(x * inv); writes no scale
  kToken,   // a = bf16(amax + 1e-8), s = bf16(a / max_finite), inv = bf16(1 / s); cast(x * inv); scales[0] = s
  kGroup,   // per 128 columns: a = max(amax, 1e-4), s = a / max_finite in FP32; cast(x / s); scales[ceil(n / 128)]
};

inline constexpr int64_t kQuantiseGroup = 128;

// cast: to nearest, ties to even; infinities and what is beyond max_finite become max_finite; the sign of zero and NaN
// are kept. Definitions: vLLM's Gaudi fork (dynamic_quant), DeepSeek's act_quant (inference/kernel.py).
inline float token_scale(float amax, float max_finite) {
  return round_to_bf16(round_to_bf16(amax + 1e-8f) / max_finite);
}
inline float group_scale(float amax, float max_finite, bool pow2) {
  const float scale = std::max(amax, 1e-4f) / max_finite;
  return pow2 ? std::exp2(std::ceil(std::log2(scale))) : scale;
}

struct QuantiseArgs {
  QuantiseKind kind = QuantiseKind::kStatic;
  float max_finite = 448;   // or 240
  float inv = 1;            // kStatic
  bool pow2 = false;        // kGroup: s is rounded up to a power of two (scale_fmt "ue8m0")
  const void* x = nullptr;  // act [n]
  int64_t n = 0;
  void* out = nullptr;  // act [n]; may be x
  float* scales = nullptr;
};

}  // namespace hadal
