#include "quant/sidecar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

constexpr const char* kHeader = "an original header";

struct Chunk {
  std::vector<uint8_t> codes;
  LostBits lost;
};

Chunk make_chunk(size_t size, uint32_t seed) {
  std::mt19937 source(seed);
  Chunk chunk;
  chunk.codes.resize(size);
  for (uint8_t& code : chunk.codes) code = static_cast<uint8_t>(source() % 0x7F);
  std::vector<uint8_t> mapped(size);
  map_codes(RangeMap::kExact, chunk.codes, mapped, &chunk.lost);
  return chunk;
}

// Two tensors, the first of two chunks.
std::vector<Chunk> write_sample(const std::filesystem::path& path) {
  std::vector<Chunk> chunks = {make_chunk(kSidecarChunkCodes, 1), make_chunk(1000, 2), make_chunk(77, 3)};
  auto writer = SidecarWriter::create(path, kHeader);
  EXPECT_TRUE(writer);
  writer->begin_tensor("a", kSidecarChunkCodes + 1000);
  EXPECT_TRUE(writer->add_chunk(encode_lost_bits(chunks[0].lost, chunks[0].codes)));
  EXPECT_TRUE(writer->add_chunk(encode_lost_bits(chunks[1].lost, chunks[1].codes)));
  writer->begin_tensor("b", 77);
  EXPECT_TRUE(writer->add_chunk(encode_lost_bits(chunks[2].lost, chunks[2].codes)));
  EXPECT_TRUE(writer->commit());
  EXPECT_EQ(writer->size_bytes(), std::filesystem::file_size(path));
  return chunks;
}

TEST(Sidecar, ReadsWhatWasWritten) {
  const TempDir dir;
  const auto path = dir.path() / "x.lost";
  const auto chunks = write_sample(path);
  const auto reader = SidecarReader::open(path);
  ASSERT_TRUE(reader) << reader.error().message;
  EXPECT_EQ(reader->original_header(), kHeader);
  EXPECT_EQ(reader->find("c"), nullptr);
  const SidecarTensor *a = reader->find("a"), *b = reader->find("b");
  ASSERT_TRUE(a != nullptr && b != nullptr);
  EXPECT_EQ(*reader->read_chunk(*a, 0), chunks[0].lost);
  EXPECT_EQ(*reader->read_chunk(*a, 1), chunks[1].lost);
  EXPECT_EQ(*reader->read_chunk(*b, 0), chunks[2].lost);
  EXPECT_EQ(b->chunks[0].codes_hash, hash_bytes(std::as_bytes(std::span(chunks[2].codes))));
}

// One flipped bit anywhere is found, at the latest when its chunk is read.
TEST(Sidecar, EveryChangedByteIsFound) {
  const TempDir dir;
  const auto path = dir.path() / "x.lost";
  auto writer = SidecarWriter::create(path, kHeader);
  const Chunk chunk = make_chunk(300, 4);
  writer->begin_tensor("a", 300);
  ASSERT_TRUE(writer->add_chunk(encode_lost_bits(chunk.lost, chunk.codes)));
  ASSERT_TRUE(writer->commit());
  const std::string content = *read_file(path, 1 << 20);
  for (size_t at = 0; at < content.size(); ++at) {
    std::string damaged = content;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    ASSERT_TRUE(write_file_atomically(path, damaged));
    const auto reader = SidecarReader::open(path);
    if (!reader) continue;
    EXPECT_FALSE(reader->read_chunk(reader->table().tensors.at(0), 0)) << at;
  }
}

TEST(Sidecar, EveryCutIsFound) {
  const TempDir dir;
  const auto path = dir.path() / "x.lost";
  write_sample(path);
  const std::string content = *read_file(path, 1 << 20);
  for (size_t size = 0; size < content.size(); size += 1 + size / 7) {
    ASSERT_TRUE(write_file_atomically(path, std::string_view(content).substr(0, size)));
    const auto reader = SidecarReader::open(path);
    ASSERT_FALSE(reader) << size;
    EXPECT_THAT(reader.error().message, HasSubstr("x.lost: "));
  }
}

TEST(Sidecar, DamagedTablesAreRefused) {
  const auto field = [](std::vector<uint8_t>& out, uint64_t value, int size) {
    for (int i = 0; i < size; ++i) out.push_back(static_cast<uint8_t>(value >> (8 * i)));
  };
  struct Case {
    uint64_t header_bytes;
    uint32_t num_tensors, name_bytes;
    uint64_t num_codes;
    uint32_t num_lost, payload_bytes;
    const char* fragment;  // empty: sound
  };
  // Payloads end at byte 18: 8 of magic, 4 of header, 6 of payload.
  const Case cases[] = {
      {4, 1, 1, 100, 5, 6, ""},
      {1 << 20, 1, 1, 100, 5, 6, "original header"},
      {4, 2, 1, 100, 5, 6, "ends in the middle"},
      {4, 0, 1, 100, 5, 6, "payloads up to"},
      {4, 1, 0, 100, 5, 6, "name of 0 bytes"},
      {4, 1, 0xFFFFFFFF, 100, 5, 6, "a name of"},
      {4, 1, 200, 100, 5, 6, "ends in the middle"},
      {4, 1, 1, UINT64_MAX, 5, 6, "ends in the middle"},
      {4, 1, 1, 4, 5, 6, "lost bits of 4 codes"},
      {4, 1, 1, 100, 5, 4, "lost bits"},
      {4, 1, 1, 100, 1, 6, "lost bits"},
      {4, 1, 1, 100, 5, 7, "lost bits"},
      {4, 1, 1, 100, 5, 5, "payloads up to"},
  };
  for (const Case& test : cases) {
    std::vector<uint8_t> table;
    field(table, test.header_bytes, 8);
    field(table, 0, 8);
    field(table, test.num_tensors, 4);
    field(table, test.name_bytes, 4);
    table.push_back('a');
    field(table, test.num_codes, 8);
    field(table, test.num_lost, 4);
    field(table, test.payload_bytes, 4);
    field(table, 0, 8);
    field(table, 0, 8);
    const auto parsed = parse_sidecar_table(table, 18);
    EXPECT_EQ(parsed.has_value(), *test.fragment == '\0') << test.fragment;
    if (!parsed) {
      EXPECT_THAT(parsed.error().message, HasSubstr(test.fragment));
    }
  }
}

TEST(Sidecar, DamagedPayloadsAreRefused) {
  const std::vector<uint8_t> payload = {1, 4, 0x80, 0x01};  // position 0, then 3, then 4 + 64
  EXPECT_EQ(*decode_lost_bits(payload, 3, 69), (LostBits{1, 6, 136}));
  EXPECT_FALSE(decode_lost_bits(payload, 3, 68));  // beyond the chunk
  EXPECT_FALSE(decode_lost_bits(payload, 2, 100));
  EXPECT_FALSE(decode_lost_bits(payload, 4, 100));
  const std::vector<uint8_t> cut = {0x80}, longer = {0x80, 0x80, 0x80, 0x80, 0x00};
  EXPECT_FALSE(decode_lost_bits(cut, 1, 100));
  EXPECT_FALSE(decode_lost_bits(longer, 1, 100));
}

}  // namespace
}  // namespace hadal
