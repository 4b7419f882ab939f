#include "tensor/dtype.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

TEST(DType, NamesRoundTripAndSizesAreThoseOfTheFormat) {
  ASSERT_EQ(dtype_names().size(), 15u);
  for (const std::string& name : dtype_names()) {
    const auto dtype = parse_dtype(name);
    ASSERT_TRUE(dtype.has_value()) << name;
    EXPECT_EQ(dtype_name(*dtype), name);
  }
  EXPECT_EQ(dtype_size_bytes(DType::kF64), 8u);
  EXPECT_EQ(dtype_size_bytes(DType::kF32), 4u);
  EXPECT_EQ(dtype_size_bytes(DType::kBF16), 2u);
  EXPECT_EQ(dtype_size_bytes(DType::kF8E4M3), 1u);
  EXPECT_EQ(dtype_size_bytes(DType::kI16), 2u);
  EXPECT_EQ(dtype_size_bytes(DType::kBool), 1u);
  EXPECT_EQ(parse_dtype("F8_E4M3"), DType::kF8E4M3);
}

TEST(DType, UnknownSpellingsAreRefused) {
  for (const char* name : {"", "bf16", "F8_E4M3FN", "BF16 ", "FLOAT"}) {
    EXPECT_FALSE(parse_dtype(name).has_value()) << name;
  }
}

}  // namespace
}  // namespace hadal
