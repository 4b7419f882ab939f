// bfloat16 as a storage type: the upper half of a binary32.
// Safe to include in files compiled for one ISA: no library code, and the functions are always inlined, so that no
// out-of-line copy with that ISA's instructions can be picked by the linker for the rest of the program.
// For the same reason do not take their address: wrap them in a lambda.
#pragma once

#include <bit>
#include <cstdint>

namespace hadal {

struct bf16_t {
  uint16_t bits = 0;
  friend constexpr bool operator==(bf16_t, bf16_t) = default;  // of bits: NaN equals itself, +0 differs from -0
};
static_assert(sizeof(bf16_t) == 2 && alignof(bf16_t) == 2);

// Exact.
[[gnu::always_inline]] inline constexpr float bf16_to_f32(bf16_t x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

// Rounds to nearest, ties to even; overflows to infinity. A NaN stays a NaN: quiet, sign and upper payload kept.
[[gnu::always_inline]] inline constexpr bf16_t f32_to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  const uint32_t round_up = 0x7FFFu + ((bits >> 16) & 1u);
  return {static_cast<uint16_t>((bits + round_up) >> 16)};
}

// x rounded to bfloat16 and back.
[[gnu::always_inline]] inline constexpr float round_to_bf16(float x) { return bf16_to_f32(f32_to_bf16(x)); }

}  // namespace hadal
