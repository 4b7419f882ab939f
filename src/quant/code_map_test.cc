#include "quant/code_map.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>

#include "tensor/fp8.h"

namespace hadal {
namespace {

std::vector<uint8_t> random_codes(size_t count, uint32_t seed) {
  std::mt19937 source(seed);
  std::vector<uint8_t> codes(count);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(source());
  return codes;
}

// By the tables of range_map.h, a code at a time.
struct Definition {
  std::vector<uint8_t> codes;
  uint64_t num_inexact = 0, num_nan = 0;
  double max_relative_error = 0;
  LostBits lost;
};
Definition define(RangeMap map, const std::vector<uint8_t>& codes) {
  Definition out;
  const double factor = map == RangeMap::kExact ? 2.0 : 448.0 / 240.0;
  for (size_t i = 0; i < codes.size(); ++i) {
    const uint8_t mapped = range_map_codes(map)[codes[i]];
    out.codes.push_back(mapped);
    out.num_nan += (codes[i] & 0x7F) == 0x7F;
    if (!range_map_rounds(map, codes[i])) continue;
    ++out.num_inexact;
    const double old = e4m3_to_f32(codes[i]), now = e4m3_to_f32(mapped) * factor;
    out.max_relative_error = std::max(out.max_relative_error, std::fabs(now / old - 1));
    out.lost.push_back(static_cast<uint32_t>(i << 1 | (std::fabs(old) > std::fabs(now) ? 1 : 0)));
  }
  return out;
}

TEST(CodeMap, EqualsTheTablesAtEveryLength) {
  for (const RangeMap map : {RangeMap::kExact, RangeMap::kSeed}) {
    for (const size_t size :
         {size_t{0}, size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{255 * 64 + 1}, size_t{100'000}}) {
      const auto codes = random_codes(size, static_cast<uint32_t>(size));
      const Definition expected = define(map, codes);
      std::vector<uint8_t> out(size);
      LostBits lost = {1, 2, 3};
      map_codes_baseline(map, codes, out, nullptr);
      ASSERT_EQ(out, expected.codes) << range_map_name(map) << " " << size;
      std::fill(out.begin(), out.end(), uint8_t{0});
      const CodeMapStats stats = map_codes(map, codes, out, map == RangeMap::kExact ? &lost : nullptr);
      ASSERT_EQ(out, expected.codes) << range_map_name(map) << " " << size;
      EXPECT_EQ(stats.num_codes, size);
      EXPECT_EQ(stats.num_inexact, expected.num_inexact) << range_map_name(map) << " " << size;
      EXPECT_EQ(stats.num_nan, expected.num_nan);
      EXPECT_NEAR(stats.max_relative_error, expected.max_relative_error, 1e-12);
      if (map == RangeMap::kExact) {
        EXPECT_EQ(lost, expected.lost);
      }
    }
  }
}

TEST(CodeMap, ErrorOfEachSingleCode) {
  for (const RangeMap map : {RangeMap::kExact, RangeMap::kSeed}) {
    for (int code = 0; code < 256; ++code) {
      // 64 codes take the vector path, the rest of them is zero.
      std::vector<uint8_t> codes(64), out(64);
      codes[17] = static_cast<uint8_t>(code);
      const Definition expected = define(map, codes);
      const CodeMapStats stats = map_codes(map, codes, out, nullptr);
      EXPECT_EQ(out, expected.codes) << code;
      EXPECT_EQ(stats.num_inexact, expected.num_inexact) << code;
      EXPECT_NEAR(stats.max_relative_error, expected.max_relative_error, 1e-12) << range_map_name(map) << " " << code;
    }
  }
}

TEST(CodeMap, LostBitsRestoreEveryCode) {
  std::vector<uint8_t> codes;
  for (int code = 0; code < 256; ++code) codes.push_back(static_cast<uint8_t>(code));
  std::vector<uint8_t> mapped(256), restored(256);
  LostBits lost;
  map_codes(RangeMap::kExact, codes, mapped, &lost);
  EXPECT_EQ(lost.size(), 16u);
  ASSERT_TRUE(unmap_exact_codes(mapped, lost, restored));
  EXPECT_EQ(restored, codes);
}

TEST(CodeMap, ImpossibleInputsOfTheInverseAreRefused) {
  std::vector<uint8_t> out(4);
  const auto restores = [&](std::vector<uint8_t> codes, const LostBits& lost) {
    return unmap_exact_codes(codes, lost, out);
  };
  EXPECT_TRUE(restores({0x76, 0xF6, 0x7F, 0xFF}, {}));
  EXPECT_FALSE(restores({0x77, 0, 0, 0}, {}));  // 0x7F would come out
  EXPECT_FALSE(restores({0, 0xF8, 0, 0}, {}));
  EXPECT_FALSE(restores({0, 0, 0, 0}, {4 << 1}));      // beyond the end
  EXPECT_FALSE(restores({0, 0, 0, 0}, {0 << 1 | 0}));  // nothing below zero
  EXPECT_TRUE(restores({0, 0, 0, 0}, {0 << 1 | 1}));
  EXPECT_FALSE(restores({0x01, 0, 0, 0}, {0 << 1 | 1}));  // odd results are never rounded to
  EXPECT_TRUE(restores({0x08, 0, 0, 0}, {0 << 1 | 0}));
  EXPECT_FALSE(restores({0x08, 0, 0, 0}, {0 << 1 | 1}));  // 0x11 is halved without rounding
  EXPECT_FALSE(restores({0x10, 0, 0, 0}, {0 << 1 | 0}));
}

}  // namespace
}  // namespace hadal
