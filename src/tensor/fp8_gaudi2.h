// How a Gaudi 2 reads and writes FP8 E4M3: exponent 15 is reserved as in IEEE formats, so it ends at 240, 0x78 is
// infinity and what follows is NaN. Codes up to 0x77 mean the same as everywhere (fp8.h). Facts: the published number
// format tests of Intel's PyTorch bridge.
#pragma once

#include <bit>
#include <cstdint>

#include "tensor/fp8.h"

namespace hadal {

inline constexpr uint8_t kGaudi2Infinity = 0x78;

// Exact. NaN codes become a quiet NaN of their sign.
inline constexpr float gaudi2_e4m3_to_f32(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24;
  const uint8_t magnitude = code & 0x7F;
  if (magnitude == kGaudi2Infinity) return std::bit_cast<float>(sign | 0x7F800000u);
  if (magnitude > kGaudi2Infinity) return std::bit_cast<float>(sign | 0x7FC00000u);
  return e4m3_to_f32(code);
}

// The device's cast: nearest, ties to even; finite values beyond 240 and infinities saturate; the sign of zero is kept.
// NaN becomes 0x7F with its sign. Never gives a code from 0x78 to 0x7E.
inline constexpr uint8_t f32_to_gaudi2_e4m3(float x) { return f32_to_e4m3(x, kE4m3MaxGaudi2); }

}  // namespace hadal
