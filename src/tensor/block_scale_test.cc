#include "tensor/block_scale.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

// The scale shapes that DeepSeek-V3's checkpoint has.
TEST(BlockScale, ShapesOfTheV3Checkpoint) {
  const BlockScaleLayout layout;
  EXPECT_EQ(layout.scale_shape(1536, 7168), (Shape{12, 56}));
  EXPECT_EQ(layout.scale_shape(576, 7168), (Shape{5, 56}));  // ragged: the last row block has 64 rows
  EXPECT_EQ(layout.scale_shape(32768, 512), (Shape{256, 4}));
  EXPECT_EQ(layout.scale_shape(192, 96), (Shape{2, 1}));
}

TEST(BlockScale, IndexFollowsTheBlocks) {
  const BlockScaleLayout layout;
  EXPECT_EQ(layout.scale_idx(0, 0, 7168), 0);
  EXPECT_EQ(layout.scale_idx(127, 127, 7168), 0);
  EXPECT_EQ(layout.scale_idx(127, 128, 7168), 1);
  EXPECT_EQ(layout.scale_idx(128, 0, 7168), 56);
  EXPECT_EQ(layout.scale_idx(575, 7167, 7168), 5 * 56 - 1);
  EXPECT_EQ((BlockScaleLayout{64, 32}.scale_idx(64, 95, 96)), 3 + 2);
}

}  // namespace
}  // namespace hadal
