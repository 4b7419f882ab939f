#include "tensor/fp8.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "support/test_files.h"

namespace hadal {
namespace {

static_assert(f32_to_e4m3(1.0f) == 0x38);
static_assert(e4m3_to_f32(0x7E) == kE4m3Max);
static_assert(e4m3_to_f32(0x77) == kE4m3MaxGaudi2);

float from_hex_bits(const std::string& text) {
  return std::bit_cast<float>(static_cast<uint32_t>(std::stoul(text, nullptr, 16)));
}

// The definition by search: nearest finite code not above max_code, ties to the even one, sign apart. From max_code's
// value on there is nothing to search (and the distances of huge numbers would be equal in a double).
uint8_t encode_by_search(float x, uint8_t max_code) {
  const uint8_t sign = std::signbit(x) ? 0x80 : 0;
  if (std::isnan(x)) return sign | 0x7F;
  const double magnitude = std::fabs(static_cast<double>(x));
  if (magnitude >= e4m3_to_f32(max_code)) return sign | max_code;
  int best = 0;
  for (int code = 1; code <= max_code; ++code) {
    const double distance = std::fabs(magnitude - e4m3_to_f32(static_cast<uint8_t>(code)));
    const double best_distance = std::fabs(magnitude - e4m3_to_f32(static_cast<uint8_t>(best)));
    if (distance < best_distance || (distance == best_distance && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(sign | best);
}

// Only the sign, the exponent, the upper mantissa bits and whether anything is below them decide the result, so these
// patterns stand for all of binary32.
void check_encoder(float max_finite, uint8_t max_code) {
  for (uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (const uint32_t lower : {0u, 1u, 0xFFFFu}) {
      const float x = std::bit_cast<float>(upper << 16 | lower);
      ASSERT_EQ(f32_to_e4m3(x, max_finite), encode_by_search(x, max_code)) << std::hex << upper << " " << lower;
    }
  }
}

TEST(Fp8, EncoderIsNearestEvenSaturating) { check_encoder(kE4m3Max, 0x7E); }
TEST(Fp8, EncoderOfTheGaudi2RangeEndsAt240) { check_encoder(kE4m3MaxGaudi2, 0x77); }

TEST(Fp8, EveryCodeSurvivesTheRoundTripAndIsExactInBf16) {
  for (int code = 0; code < 256; ++code) {
    const uint8_t byte = static_cast<uint8_t>(code);
    EXPECT_EQ(f32_to_e4m3(e4m3_to_f32(byte)), byte);
    if ((code & 0x7F) == kE4m3NaN) {
      EXPECT_TRUE(std::isnan(e4m3_to_f32(byte)) && std::isnan(bf16_to_f32(e4m3_to_bf16(byte))));
    } else {
      EXPECT_EQ(bf16_to_f32(e4m3_to_bf16(byte)), e4m3_to_f32(byte));
    }
  }
}

TEST(Fp8, AgreesWithTheGoldenTable) {
  HADAL_SPEC_DATA_OR_SKIP(path, "golden_fp8.json");
  const Json golden = load_json(path);
  ASSERT_EQ(golden["e4m3fn_decode"].size(), 256u);
  for (int code = 0; code < 256; ++code) {
    const Json& expected = golden["e4m3fn_decode"][code];
    const float found = e4m3_to_f32(static_cast<uint8_t>(code));
    if (expected.is_null()) {
      EXPECT_TRUE(std::isnan(found)) << code;
    } else {
      EXPECT_EQ(found, expected.get<float>()) << code;
      EXPECT_EQ(std::signbit(found), code >= 128) << code;
    }
  }
  ASSERT_GE(golden["encode_saturating_rne"].size(), 30u);
  for (const Json& row : golden["encode_saturating_rne"]) {
    EXPECT_EQ(f32_to_e4m3(from_hex_bits(row["f32_bits"])), row["byte"].get<int>()) << row.dump();
  }
}

TEST(Fp8, EncodesTheGoldenActivationGroups) {
  HADAL_SPEC_DATA_OR_SKIP(path, "golden_fp8.json");
  const Json golden = load_json(path);
  int num_codes = 0;
  for (const Json& group : golden["act_quant_128"]) {
    for (const char* kind : {"f32_scale", "ue8m0_scale"}) {
      const float scale = from_hex_bits(group[kind]["scale_f32_bits"]);
      for (size_t i = 0; i < group["x_bf16_bits"].size(); ++i, ++num_codes) {
        const float x = bf16_to_f32({group["x_bf16_bits"][i].get<uint16_t>()});
        EXPECT_EQ(f32_to_e4m3(x / scale), group[kind]["codes"][i].get<int>())
            << group["name"] << " " << kind << " " << i;
      }
    }
  }
  EXPECT_GE(num_codes, 5 * 2 * 128);
}

}  // namespace
}  // namespace hadal
