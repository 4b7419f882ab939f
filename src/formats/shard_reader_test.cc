// Every range of a tensor, cached or not, equals what was written: unaligned begins, the file's ragged end, one byte.
#include "formats/shard_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>

#include "formats/safetensors_writer.h"
#include "support/test_files.h"

namespace hadal {
namespace {

constexpr int64_t kSize = 3'000'001;  // the file ends off any alignment

class ShardReaderTest : public testing::Test {
 protected:
  void SetUp() override {
    bytes_.resize(kSize);
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<std::byte>(i * 2654435761u >> 24);
    const std::array<TensorToWrite, 1> tensors = {TensorToWrite{"w", DType::kF8E4M3, {kSize}}};
    auto writer = SafetensorsWriter::create(file(), tensors);
    ASSERT_TRUE(writer.has_value()) << writer.error().message;
    ASSERT_TRUE(writer->append(bytes_).has_value());
    ASSERT_TRUE(writer->finish().has_value());
  }
  std::filesystem::path file() const { return root_.path() / kCheckpointSingleName; }

  void forget_cached_pages() const {
    const int fd = ::open(file().c_str(), O_RDONLY);
    ASSERT_GE(fd, 0);
    ::fsync(fd);
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
  }

  void expect_ranges(bool direct) const {
    const auto checkpoint = Checkpoint::open(root_.path());
    ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
    const ShardReader reader(*checkpoint, direct);
    ShardReader::Buffer buffer;
    for (const auto& [offset, size] : std::vector<std::pair<uint64_t, size_t>>{
             {0, 1}, {0, 4096}, {1, 4095}, {4000, 200}, {123'457, 2'000'003}, {kSize - 1, 1}, {0, kSize}}) {
      const auto got = reader.read(*checkpoint->find("w"), offset, size, buffer);
      ASSERT_TRUE(got.has_value()) << got.error().message;
      ASSERT_EQ(got->size(), size);
      EXPECT_TRUE(std::equal(got->begin(), got->end(), bytes_.begin() + static_cast<ptrdiff_t>(offset)))
          << offset << " + " << size;
    }
    EXPECT_FALSE(reader.read(*checkpoint->find("w"), kSize - 10, 11, buffer).has_value());
    EXPECT_FALSE(reader.read(*checkpoint->find("w"), uint64_t{1} << 63, 1, buffer).has_value());
  }

  TempDir root_;
  std::vector<std::byte> bytes_;
};

TEST_F(ShardReaderTest, Plain) { expect_ranges(false); }
TEST_F(ShardReaderTest, DirectFromCache) { expect_ranges(true); }
TEST_F(ShardReaderTest, DirectFromDisk) {
  forget_cached_pages();
  expect_ranges(true);
}

TEST_F(ShardReaderTest, AFileThatShrankIsCorrupt) {
  const auto checkpoint = Checkpoint::open(root_.path());
  ASSERT_TRUE(checkpoint.has_value());
  const ShardReader reader(*checkpoint, true);
  std::filesystem::resize_file(file(), 1'000'000);
  ShardReader::Buffer buffer;
  const auto got = reader.read(*checkpoint->find("w"), 2'000'000, 4096, buffer);
  ASSERT_FALSE(got.has_value());
  EXPECT_EQ(got.error().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace hadal
