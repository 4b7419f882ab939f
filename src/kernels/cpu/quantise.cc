#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/cpu/drivers.h"
#include "kernels/kernels.h"

namespace hadal::cpu {
namespace {

constexpr uint32_t kAbs = 0x7FFFFFFFu, kInfinityBits = 0x7F800000u;

// f32_to_e4m3() and back, without branches, so that loops over it vectorise.
inline bf16_t to_grid(float y, uint32_t max_bits) {
  constexpr uint32_t kSmallestNormal = std::bit_cast<uint32_t>(0x1p-6f);
  const uint32_t bits = std::bit_cast<uint32_t>(y), magnitude = bits & kAbs;
  const uint32_t clamped = magnitude < max_bits ? magnitude : max_bits;
  const uint32_t normal = (clamped + 0x7FFFFu + ((clamped >> 20) & 1u)) & 0xFFF00000u;
  // One unit in the last place of 2^14 is the step of the subnormal codes.
  const float subnormal = (std::bit_cast<float>(clamped) + 0x1p14f) - 0x1p14f;
  const uint32_t finite = clamped < kSmallestNormal ? std::bit_cast<uint32_t>(subnormal) : normal;
  const uint32_t result = magnitude > kInfinityBits ? 0x7FC00000u : finite;
  return {static_cast<uint16_t>((result | (bits & ~kAbs)) >> 16)};
}

float largest_magnitude(const bf16_t* x, int64_t n) {
  uint16_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max<uint16_t>(largest, x[i].bits & 0x7FFF);
  return bf16_to_f32({largest});
}

void multiply(const bf16_t* x, int64_t n, float inv, float max_finite, bf16_t* out) {
  const uint32_t max_bits = std::bit_cast<uint32_t>(max_finite);
  for (int64_t i = 0; i < n; ++i) out[i] = to_grid(bf16_to_f32(x[i]) * inv, max_bits);
}

}  // namespace

void quantise_row(const QuantiseArgs& a) {
  const auto* x = static_cast<const bf16_t*>(a.x);
  auto* out = static_cast<bf16_t*>(a.out);
  if (a.kind == QuantiseKind::kStatic) return multiply(x, a.n, a.inv, a.max_finite, out);
  if (a.kind == QuantiseKind::kToken) {
    const float scale = token_scale(largest_magnitude(x, a.n), a.max_finite);
    a.scales[0] = scale;
    return multiply(x, a.n, round_to_bf16(1.0f / scale), a.max_finite, out);
  }
  const uint32_t max_bits = std::bit_cast<uint32_t>(a.max_finite);
  for (int64_t begin = 0; begin < a.n; begin += kQuantiseGroup) {
    const int64_t n = std::min(kQuantiseGroup, a.n - begin);
    const float scale = group_scale(largest_magnitude(x + begin, n), a.max_finite, a.pow2);
    a.scales[begin / kQuantiseGroup] = scale;
    for (int64_t i = begin; i < begin + n; ++i) out[i] = to_grid(bf16_to_f32(x[i]) / scale, max_bits);
  }
}

}  // namespace hadal::cpu
