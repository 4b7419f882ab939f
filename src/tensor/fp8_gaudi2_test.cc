#include "tensor/fp8_gaudi2.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hadal {
namespace {

TEST(Gaudi2E4m3, DecodesAll256Codes) {
  for (int i = 0; i < 256; ++i) {
    const auto code = static_cast<uint8_t>(i);
    const int exponent = (i >> 3) & 0xF, mantissa = i & 7;
    const double sign = i & 0x80 ? -1 : 1;
    const float value = gaudi2_e4m3_to_f32(code);
    ASSERT_EQ(std::signbit(value), sign < 0) << i;
    if (exponent == 15) {
      if (mantissa == 0) {
        ASSERT_TRUE(std::isinf(value)) << i;
      } else {
        ASSERT_TRUE(std::isnan(value)) << i;
      }
    } else if (exponent == 0) {
      ASSERT_EQ(value, sign * mantissa * 0x1p-9) << i;
    } else {
      ASSERT_EQ(value, sign * (8 + mantissa) * std::ldexp(1.0, exponent - 10)) << i;
    }
  }
}

// Every finite BF16 value goes to the nearest code; of two equally near ones to the even one; beyond 240 to 240.
TEST(Gaudi2E4m3, EncodesAllBf16Values) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float x = bf16_to_f32({static_cast<uint16_t>(bits)});
    const uint8_t code = f32_to_gaudi2_e4m3(x);
    ASSERT_EQ((code & 0x80) != 0, std::signbit(x)) << bits;
    if (std::isnan(x)) {
      ASSERT_EQ(code & 0x7F, 0x7F) << bits;
      continue;
    }
    const uint8_t magnitude = code & 0x7F;
    ASSERT_LE(magnitude, 0x77) << bits;
    const double value = std::fabs(static_cast<double>(x)), coded = gaudi2_e4m3_to_f32(magnitude);
    if (value >= 240) {
      ASSERT_EQ(magnitude, 0x77) << bits;
      continue;
    }
    const double error = std::fabs(value - coded);
    for (const int neighbour : {magnitude - 1, magnitude + 1}) {
      if (neighbour < 0 || neighbour > 0x77) continue;
      const double other = std::fabs(value - gaudi2_e4m3_to_f32(static_cast<uint8_t>(neighbour)));
      ASSERT_LE(error, other) << bits;
      if (error == other) {
        ASSERT_EQ(magnitude % 2, 0) << bits;
      }
    }
  }
}

TEST(Gaudi2E4m3, CodesSurviveTheRoundTrip) {
  for (int i = 0; i < 256; ++i) {
    if ((i & 0x7F) > 0x77) continue;
    ASSERT_EQ(f32_to_gaudi2_e4m3(gaudi2_e4m3_to_f32(static_cast<uint8_t>(i))), i);
  }
}

}  // namespace
}  // namespace hadal
