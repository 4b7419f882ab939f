#include "quant/range_map.h"

#include <gtest/gtest.h>

#include <bit>

#include "tensor/fp8.h"

namespace hadal {
namespace {

// zlib's CRC-32.
uint32_t crc32(std::span<const uint8_t> bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? (crc >> 1) ^ 0xEDB88320u : crc >> 1;
  }
  return ~crc;
}

TEST(RangeMap, SeedIsThePeersByteMap) {
  const auto& codes = range_map_codes(RangeMap::kSeed);
  EXPECT_EQ(crc32(codes), 0x38800fbfu);
  for (int code = 0x0F; code < 0x7F; ++code) EXPECT_EQ(codes[static_cast<size_t>(code)], code - 7) << code;
  EXPECT_EQ(codes[0x0E], 0x08);  // the only tie goes to even
  EXPECT_EQ(codes[0x80], 0x80);
  EXPECT_EQ(codes[0xFF], 0xFF);
}

TEST(RangeMap, SeedScalesAreTwoRoundedOperations) {
  const uint32_t cases[][2] = {
      {0x3f800000, 0x3feeeeef}, {0x3951b717, 0x39c3bbf3}, {0x38d1b717, 0x3943bbf3}, {0x3a83126f, 0x3af4aaf1}};
  for (const auto& [from, to] : cases) {
    EXPECT_EQ(std::bit_cast<uint32_t>(range_map_scale(RangeMap::kSeed, std::bit_cast<float>(from))), to);
  }
}

TEST(RangeMap, NothingLeavesTheRangeOfGaudi2) {
  for (const RangeMap map : {RangeMap::kExact, RangeMap::kSeed}) {
    for (int code = 0; code < 256; ++code) {
      if ((code & 0x7F) == kE4m3NaN) continue;
      EXPECT_LE(range_map_codes(map)[static_cast<size_t>(code)] & 0x7F, 0x77) << code;
    }
  }
}

TEST(RangeMap, ExactRoundsOddCodesOfTheLowestBinadesOnly) {
  for (int code = 0; code < 256; ++code) {
    const int magnitude = code & 0x7F;
    EXPECT_EQ(range_map_rounds(RangeMap::kExact, static_cast<uint8_t>(code)), magnitude < 0x10 && magnitude % 2 == 1)
        << code;
    if (magnitude >= 0x10 && magnitude != kE4m3NaN) {
      EXPECT_EQ(range_map_codes(RangeMap::kExact)[static_cast<size_t>(code)], code - 8) << code;
    }
  }
}

TEST(RangeMap, SeedKeepsFourteenMagnitudes) {
  int exact = 0;
  for (uint8_t code = 1; code < 0x7F; ++code) exact += range_map_rounds(RangeMap::kSeed, code) ? 0 : 1;
  EXPECT_EQ(exact, 14);
}

}  // namespace
}  // namespace hadal
