#include "engine/random.h"

#include <gtest/gtest.h>

#include <set>

namespace hadal {
namespace {

TEST(Random, MatchesThePublishedVectors) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, NoiseDiffersInEachOfItsArguments) {
  std::set<double> seen;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    for (uint64_t sample_idx = 0; sample_idx < 5; ++sample_idx) {
      for (uint64_t position = 0; position < 5; ++position) {
        const double noise = sampling_noise(seed, sample_idx, position);
        EXPECT_TRUE(noise >= 0 && noise < 1);
        EXPECT_TRUE(seen.insert(noise).second);
      }
    }
  }
}

}  // namespace
}  // namespace hadal
