#include "tensor/bf16.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

namespace hadal {
namespace {

static_assert(f32_to_bf16(1.0f).bits == 0x3F80);
static_assert(bf16_to_f32({0xC000}) == -2.0f);

TEST(Bf16, EveryCodeSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const bf16_t x{static_cast<uint16_t>(bits)};
    const float value = bf16_to_f32(x);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(value)))) << bits;
      EXPECT_EQ(f32_to_bf16(value).bits & 0x8000, bits & 0x8000) << bits;
    } else {
      EXPECT_EQ(f32_to_bf16(value).bits, bits);
    }
  }
}

// Against the definition: the nearer of the two neighbours, the even one when both are as near.
uint16_t nearest_even(float x) {
  const uint16_t down = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);  // towards zero
  const uint16_t up = down + 1;
  const double low = bf16_to_f32({down});
  // Beyond the largest finite code the next step would be 2^128; infinity stands for it.
  const double high = (up & 0x7FFF) == 0x7F80 ? std::copysign(0x1p128, x) : double{bf16_to_f32({up})};
  const double to_low = std::fabs(x - low);
  const double to_high = std::fabs(high - x);
  if (to_low != to_high) return to_low < to_high ? down : up;
  return down % 2 == 0 ? down : up;
}

TEST(Bf16, RoundsToNearestEven) {
  std::mt19937 random(1);
  for (uint32_t high = 0; high < 0x10000; high += 3) {
    for (const uint32_t low : {0u, 1u, 0x7FFFu, 0x8000u, 0x8001u, 0xFFFFu, static_cast<uint32_t>(random() & 0xFFFF)}) {
      const float x = std::bit_cast<float>(high << 16 | low);
      if (!std::isfinite(x)) continue;
      ASSERT_EQ(f32_to_bf16(x).bits, nearest_even(x)) << std::hex << high << " " << low;
    }
  }
}

TEST(Bf16, SpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(f32_to_bf16(infinity).bits, 0x7F80);
  EXPECT_EQ(f32_to_bf16(-infinity).bits, 0xFF80);
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()).bits, 0x7F80);
  EXPECT_EQ(f32_to_bf16(-0.0f).bits, 0x8000);
  // A payload only in the lower half must not turn into infinity.
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7F800001u)))));
}

}  // namespace
}  // namespace hadal
