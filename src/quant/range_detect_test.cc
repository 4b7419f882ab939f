#include "quant/range_detect.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "formats/checkpoint.h"
#include "support/test_files.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

constexpr int64_t kRows = 256, kCols = 2048;  // 32 blocks

// Normal weights, of another size in each block of 128x128: scale = amax / 448, or that rounded up to a power of two.
std::vector<uint8_t> quantised(uint32_t seed, bool pow2_scales) {
  std::mt19937 source(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(kRows * kCols));
  for (float& value : values) value = normal(source);
  std::vector<uint8_t> codes(values.size());
  for (int64_t block = 0; block < kRows / 128 * (kCols / 128); ++block) {
    const int64_t row0 = block / (kCols / 128) * 128, col0 = block % (kCols / 128) * 128;
    const auto for_each = [&](auto fn) {
      for (int64_t i = 0; i < 128 * 128; ++i) fn(static_cast<size_t>((row0 + i / 128) * kCols + col0 + i % 128));
    };
    const float size = std::exp2(std::uniform_real_distribution<float>(-8, 0)(source));
    for_each([&](size_t at) { values[at] *= size; });
    float amax = 0;
    for_each([&](size_t at) { amax = std::max(amax, std::fabs(values[at])); });
    float scale = amax / 448;
    if (pow2_scales) scale = std::exp2(std::ceil(std::log2(scale)));
    for_each([&](size_t at) { codes[at] = f32_to_e4m3(values[at] / scale); });
  }
  return codes;
}

RangeEvidence evidence_of(RangeMap map, bool pow2_scales, uint32_t num_weights) {
  RangeEvidence evidence;
  for (uint32_t seed = 0; seed < num_weights; ++seed) {
    auto codes = quantised(seed, pow2_scales);
    for (uint8_t& code : codes) code = range_map_codes(map)[code];
    evidence.add(codes, kRows, kCols);
  }
  return evidence;
}

TEST(RangeDetect, TellsTheMapsApart) {
  for (const RangeMap map : {RangeMap::kNone, RangeMap::kSeed, RangeMap::kExact}) {
    EXPECT_EQ(detect_range_map(evidence_of(map, false, 1)), map) << range_map_name(map);
    // Scales that are powers of two leave the blocks' maxima anywhere in an octave: it takes more blocks.
    EXPECT_EQ(detect_range_map(evidence_of(map, true, 10)), map) << range_map_name(map);
  }
}

TEST(RangeDetect, SaysNothingWithoutEvidence) {
  EXPECT_EQ(detect_range_map({}), std::nullopt);
  RangeEvidence zeros;
  zeros.add(std::vector<uint8_t>(128 * 128), 128, 128);
  EXPECT_EQ(zeros.num_blocks(), 0u);
  EXPECT_EQ(detect_range_map(zeros), std::nullopt);
  // One block in the octave decides nothing; neither do blocks that end anywhere.
  RangeEvidence low;
  low.blocks[0x70] = 100;
  EXPECT_EQ(detect_range_map(low), std::nullopt);
  RangeEvidence spread;
  for (size_t top = 0x40; top <= 0x77; ++top) spread.blocks[top] = 100;
  EXPECT_EQ(detect_range_map(spread), std::nullopt);
  spread.blocks[0x78] = 1;
  EXPECT_EQ(detect_range_map(spread), RangeMap::kNone);
}

TEST(RangeDetect, BlocksMayBeRaggedAndHoldNaN) {
  RangeEvidence evidence;
  std::vector<uint8_t> codes(130 * 200, 0x01);
  codes[0] = 0xFE;                // block (0, 0)
  codes[129 * 200 + 199] = 0x20;  // block (1, 1), which is 2 x 72
  codes[150] = 0xFF;              // NaN in block (0, 1): not a magnitude
  evidence.add(codes, 130, 200);
  EXPECT_EQ(evidence.num_blocks(), 4u);
  EXPECT_EQ(evidence.blocks[0x7E], 1u);
  EXPECT_EQ(evidence.blocks[0x20], 1u);
  EXPECT_EQ(evidence.blocks[0x01], 2u);
  EXPECT_EQ(evidence.num_nan, 1u);
  EXPECT_EQ(evidence.describe(), "4 blocks, largest code 0x7E, in 25.0 % of them");
}

TEST(RangeDetect, KnowsATrainedModel) {
  const auto checkpoint = Checkpoint::open(source_dir() / "models/nano");
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  for (const RangeMap map : {RangeMap::kNone, RangeMap::kSeed, RangeMap::kExact}) {
    RangeEvidence evidence;
    for (const Checkpoint::Entry& entry : checkpoint->entries()) {
      if (entry.info.dtype != DType::kF8E4M3) continue;
      std::vector<uint8_t> codes(entry.info.size_bytes());
      ASSERT_TRUE(checkpoint->read(entry, std::as_writable_bytes(std::span(codes))));
      for (uint8_t& code : codes) code = range_map_codes(map)[code];
      evidence.add(codes, entry.info.shape[0], entry.info.shape[1]);
    }
    EXPECT_EQ(detect_range_map(evidence), map) << evidence.describe();
  }
}

}  // namespace
}  // namespace hadal
