// FP8 E4M3 (OCP "e4m3fn"): 1 sign, 4 exponent (bias 7), 3 mantissa bits, no infinities, NaN = 0x7F and 0xFF only.
// The weights of the DeepSeek checkpoints and the activations of the fp8 profiles. Every code is exact in bfloat16.
// Gaudi 2 reads the same codes but reserves exponent 15, so it ends at +-240: encode for it with kE4m3MaxGaudi2.
// Safe to include in files compiled for one ISA (see bf16.h).
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "tensor/bf16.h"

namespace hadal {

inline constexpr float kE4m3Max = 448.0f;        // code 0x7E
inline constexpr float kE4m3MaxGaudi2 = 240.0f;  // code 0x77
inline constexpr uint8_t kE4m3NaN = 0x7F;

namespace fp8_detail {

// (-1)^s * m * 2^-9 below exponent 1, (-1)^s * (1 + m/8) * 2^(e-7) above.
[[gnu::always_inline]] inline constexpr float decode_by_fields(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint32_t exponent = (code >> 3) & 0xFu;
  const uint32_t mantissa = code & 0x7u;
  if ((code & 0x7Fu) == kE4m3NaN) return std::bit_cast<float>(sign | 0x7FC00000u);
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-9f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 120u) << 23) | (mantissa << 20));
}

constexpr std::array<float, 256> make_f32_table() {
  std::array<float, 256> table{};
  for (uint32_t code = 0; code < 256; ++code) table[code] = decode_by_fields(static_cast<uint8_t>(code));
  return table;
}

constexpr std::array<bf16_t, 256> make_bf16_table() {
  std::array<bf16_t, 256> table{};
  for (uint32_t code = 0; code < 256; ++code) table[code] = f32_to_bf16(decode_by_fields(static_cast<uint8_t>(code)));
  return table;
}

}  // namespace fp8_detail

// Index = code. 64-byte aligned: kernels load them as vectors.
alignas(64) inline constexpr std::array<float, 256> kE4m3ToF32 = fp8_detail::make_f32_table();
alignas(64) inline constexpr std::array<bf16_t, 256> kE4m3ToBf16 = fp8_detail::make_bf16_table();

// Exact.
[[gnu::always_inline]] inline constexpr float e4m3_to_f32(uint8_t code) { return kE4m3ToF32.data()[code]; }
[[gnu::always_inline]] inline constexpr bf16_t e4m3_to_bf16(uint8_t code) { return kE4m3ToBf16.data()[code]; }

// Rounds to nearest, ties to even. |x| >= max_finite, infinity included, becomes max_finite; the sign of zero and of
// NaN is kept. max_finite is kE4m3Max or kE4m3MaxGaudi2. Needs the default rounding mode.
[[gnu::always_inline]] inline constexpr uint8_t f32_to_e4m3(float x, float max_finite = kE4m3Max) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 24) & 0x80u;
  uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint8_t>(sign | kE4m3NaN);
  const uint32_t max_bits = std::bit_cast<uint32_t>(max_finite);
  if (magnitude > max_bits) magnitude = max_bits;
  constexpr uint32_t kSmallestNormal = std::bit_cast<uint32_t>(0x1p-6f);
  if (magnitude < kSmallestNormal) {
    // One unit in the last place of 2^14 is 2^-9, the step of the subnormal codes: the addition rounds for us.
    const float aligned = std::bit_cast<float>(magnitude) + 0x1p14f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(aligned) - std::bit_cast<uint32_t>(0x1p14f)));
  }
  const uint32_t rounded = magnitude + 0x7FFFFu + ((magnitude >> 20) & 1u);
  return static_cast<uint8_t>(sign | ((rounded >> 20) - (120u << 3)));
}

}  // namespace hadal
