#include "base/aligned_buffer.h"

#include <gtest/gtest.h>

#include <bit>

#include "base/resource_limits.h"

namespace hadal {
namespace {

TEST(AlignedBuffer, IsZeroedAlignedAndMovable) {
  for (const uint64_t size_bytes : {uint64_t{1}, uint64_t{5000}, uint64_t{2 << 20}, uint64_t{(5 << 20) + 3}}) {
    auto buffer = AlignedBuffer::create(size_bytes, "test");
    ASSERT_TRUE(buffer.has_value()) << buffer.error().message;
    ASSERT_EQ(buffer->size_bytes(), size_bytes);
    const uint64_t alignment = size_bytes >= (2 << 20) ? 2 << 20 : 64;
    EXPECT_EQ(std::bit_cast<uintptr_t>(buffer->data()) % alignment, 0u);
    for (uint64_t i = 0; i < size_bytes; i += 997) ASSERT_EQ(buffer->data()[i], std::byte{0});
    buffer->data()[size_bytes - 1] = std::byte{7};

    std::byte* const data = buffer->data();
    AlignedBuffer moved = std::move(*buffer);
    EXPECT_EQ(moved.data(), data);
    EXPECT_EQ(buffer->data(), nullptr);
    moved = AlignedBuffer();
    EXPECT_EQ(moved.size_bytes(), 0u);
  }
}

TEST(AlignedBuffer, EmptyNeedsNoMemory) {
  auto buffer = AlignedBuffer::create(0, "test");
  ASSERT_TRUE(buffer.has_value());
  EXPECT_EQ(buffer->data(), nullptr);
}

TEST(AlignedBuffer, RefusesMoreThanThereIs) {
  const auto available = available_memory_bytes();
  if (!available) GTEST_SKIP() << "this system does not tell its free memory";
  for (const uint64_t size_bytes : {*available + (uint64_t{64} << 30), ~uint64_t{0}, uint64_t{1} << 62}) {
    const auto buffer = AlignedBuffer::create(size_bytes, "the test");
    ASSERT_FALSE(buffer.has_value());
    EXPECT_EQ(buffer.error().code, ErrorCode::kResourceExhausted);
    EXPECT_NE(buffer.error().message.find("the test"), std::string::npos);
  }
}

TEST(AlignedBuffer, CountsPromisesThatAreNotTouchedYet) {
  const auto available = available_memory_bytes();
  if (!available) GTEST_SKIP() << "this system does not tell its free memory";
  // Two thirds fit once; untouched, they still must not fit twice.
  const uint64_t size_bytes = *available / 3 * 2;
  auto first = AlignedBuffer::create(size_bytes, "first");
  ASSERT_TRUE(first.has_value()) << first.error().message;
  EXPECT_FALSE(AlignedBuffer::create(size_bytes, "second").has_value());
  *first = AlignedBuffer();
  EXPECT_TRUE(AlignedBuffer::create(size_bytes, "second").has_value());
}

}  // namespace
}  // namespace hadal
