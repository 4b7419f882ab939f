#include "quant/scale_rule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hadal {
namespace {

TEST(ScaleRule, NaiveInBf16AsThePeersTable) {
  const float cases[][3] = {{1.0f, 0.004180908203125f, 239}, {6.84375f, 0.028564453125f, 35},
                            {28, 0.11669921875f, 8.5625f},   {0.427734375f, 0.0017852783203125f, 560},
                            {163, 0.6796875f, 1.46875f},     {173056, 720, 0.0013885498046875f}};
  for (const auto& [amax, scale, inv] : cases) {
    EXPECT_EQ(scale_from_amax(amax, {}), (StaticScale{scale, inv})) << amax;
  }
}

TEST(ScaleRule, HwAlignedActivationsAndWeightsOfGaudi2) {
  const ScaleRule activations{.rounding = ScaleRounding::kHwAligned, .backoff = 0.25f};
  const float cases[][2] = {
      {0.4277f, 1.0f / 16}, {1, 1.0f / 16}, {6.84f, 1}, {28, 1}, {60, 1}, {61, 16}, {163, 16}, {960, 16},
      {3840, 16},           {140288, 16}};
  for (const auto& [amax, scale] : cases) EXPECT_EQ(scale_from_amax(amax, activations).scale, scale) << amax;
  const ScaleRule weights{.rounding = ScaleRounding::kHwAligned, .backoff = 0.5f};
  EXPECT_EQ(scale_from_amax(1.0f, weights).scale, 1.0f / 16);
  EXPECT_EQ(scale_from_amax(0.4277f, weights).scale, 1.0f / 256);
  EXPECT_EQ(scale_from_amax(6.84f, weights).scale, 1.0f / 16);
}

TEST(ScaleRule, Fp32ScalesAreReciprocalToTheLastBit) {
  const StaticScale scale = scale_from_amax(28, {.bf16 = false});
  EXPECT_EQ(scale.scale, 28.0f / 240.0f);
  EXPECT_EQ(scale.inv, 1.0f / (28.0f / 240.0f));
}

TEST(ScaleRule, ZeroMagnitude) {
  EXPECT_EQ(scale_from_amax(0, {}).scale, 0.0f);
  EXPECT_TRUE(std::isinf(scale_from_amax(0, {}).inv));
  EXPECT_GT(scale_from_amax(0, {.epsilon = 1e-8f}).scale, 0.0f);
}

}  // namespace
}  // namespace hadal
