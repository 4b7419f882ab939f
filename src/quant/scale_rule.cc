#include "quant/scale_rule.h"

#include <algorithm>
#include <cmath>

#include "tensor/bf16.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

// Exponents of the scales a device's matrix engine applies for free.
struct HwExponents {
  float spacing, least, most;
};
constexpr HwExponents hw_exponents(FpRange range) {
  return range == FpRange::kGaudi2 ? HwExponents{4, -8, 4} : HwExponents{1, -55, 7};
}

float rounded_exponent(float scale, const ScaleRule& rule) {
  const float log2 = std::log2(scale);
  return std::ceil(rule.bf16 ? round_to_bf16(log2) : log2);
}

}  // namespace

float full_scale(FpRange range) { return range == FpRange::kGaudi2 ? kE4m3MaxGaudi2 : kE4m3Max; }

StaticScale scale_from_amax(float amax, const ScaleRule& rule) {
  const auto round = [&rule](float x) { return rule.bf16 ? round_to_bf16(x) : x; };
  const float magnitude = rule.epsilon == 0 ? round(amax) : round(round(amax) + rule.epsilon);
  float scale = round(magnitude / (full_scale(rule.range) * rule.backoff));
  if (rule.rounding != ScaleRounding::kNone) {
    const HwExponents hw = hw_exponents(rule.range);
    if (scale == 0) {
      scale = rule.rounding == ScaleRounding::kHwAligned ? std::exp2(hw.least) : 0.0f;
    } else {
      float exponent = rounded_exponent(scale, rule);
      if (rule.rounding == ScaleRounding::kHwAligned) {
        exponent = std::clamp(hw.spacing * std::ceil(exponent / hw.spacing), hw.least, hw.most);
      }
      scale = std::exp2(exponent);
    }
  }
  return {.scale = scale, .inv = round(1.0f / scale)};
}

}  // namespace hadal
