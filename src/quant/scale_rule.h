// From the largest magnitude of a tensor (or row) to the scale of its FP8 codes, as Intel Neural Compressor (branch
// r1-woq) computes it for Gaudi: in the model's dtype BF16, every operation rounded, so that `scale` and `inv` are not
// exactly reciprocal. Facts: spec/gaudi-pipeline.md 4.2 and 4.4.
#pragma once

#include <cstdint>

namespace hadal {

enum class FpRange : uint8_t { kGaudi2, kGaudi3 };  // E4M3 up to 240 (IEEE-like), or up to 448 (OCP)

float full_scale(FpRange range);  // 240 or 448

// A static scale. value = code * scale; code = cast(value * inv).
struct StaticScale {
  float scale = 1;
  float inv = 1;
  friend bool operator==(const StaticScale&, const StaticScale&) = default;
};

enum class ScaleRounding : uint8_t {
  kNone,
  kPow2,       // up to a power of two
  kHwAligned,  // up to one of the device's exponent biases, clamped: Gaudi 2 {2^-8, 2^-4, 1, 2^4}, Gaudi 3 2^-55 .. 2^7
};

struct ScaleRule {
  FpRange range = FpRange::kGaudi2;
  ScaleRounding rounding = ScaleRounding::kNone;
  float backoff = 1;  // the largest magnitude maps to backoff * full_scale
  float epsilon = 0;  // added to the magnitude first (1e-8 in vLLM's dynamic quantisation)
  bool bf16 = true;   // false: FP32 arithmetic (INC_FORCE_SCALE_FP32)
};

// s = (amax + epsilon) / (full_scale * backoff), rounded as the rule says; inv = 1 / s. Requires a finite amax >= 0.
// amax 0 without epsilon gives scale 0 and inv inf, as the peer: callers decide what stands in for it.
StaticScale scale_from_amax(float amax, const ScaleRule& rule);

}  // namespace hadal
