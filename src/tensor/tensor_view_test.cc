#include "tensor/tensor_view.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace hadal {
namespace {

TEST(Shape, CountsElements) {
  EXPECT_EQ(Shape().num_elements(), 1);
  EXPECT_EQ((Shape{576, 7168}.num_elements()), 576 * 7168);
  EXPECT_EQ((Shape{3, 0, 5}.num_elements()), 0);
  EXPECT_EQ((Shape{576, 7168}.to_string()), "[576, 7168]");
  EXPECT_EQ(Shape().to_string(), "[]");
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{2, 3, 1}));
}

TEST(Shape, OverflowIsSeen) {
  const int64_t big = int64_t{1} << 32;
  EXPECT_FALSE((Shape{big, big}.checked_num_elements().has_value()));
  EXPECT_EQ((Shape{big, big, 0}.checked_num_elements()), 0);
  EXPECT_EQ((Shape{big, big / 4}.checked_num_elements()), int64_t{1} << 62);
  EXPECT_FALSE((Shape{big, big / 4}.checked_size_bytes(DType::kF32).has_value()));
  EXPECT_EQ((Shape{big, big / 4}.checked_size_bytes(DType::kBF16)), uint64_t{1} << 63);
}

TEST(Shape, ForeignDimensionsAreChecked) {
  EXPECT_FALSE(Shape::from_dims(std::vector<int64_t>{1, -1}).has_value());
  EXPECT_FALSE(Shape::from_dims(std::vector<int64_t>{1, 1, 1, 1, 1}).has_value());
  EXPECT_EQ(Shape::from_dims(std::vector<int64_t>{4, 2}), (Shape{4, 2}));
}

TEST(TensorView, SpansItsElements) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const TensorView view{values.data(), DType::kF32, {2, 3}};
  EXPECT_EQ(view.size_bytes(), 24u);
  EXPECT_EQ(view.elements<float>().size(), 6u);
  EXPECT_EQ(view.elements<float>()[5], 6.0f);
}

}  // namespace
}  // namespace hadal
