#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "formats/safetensors_writer.h"
#include "support/test_files.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

std::string length_field(uint64_t length) {
  std::string field;
  for (int i = 0; i < 8; ++i) field.push_back(static_cast<char>((length >> (8 * i)) & 0xFF));
  return field;
}

std::string file_bytes(const std::string& header, size_t num_data_bytes) {
  return length_field(header.size()) + header + std::string(num_data_bytes, 'x');
}

void write_bytes(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

// One damaged file: its bytes, and what the message must say besides the file's name.
struct Damage {
  const char* name;
  std::string bytes;
  ErrorCode code;
  std::vector<std::string> mentions;
};

std::vector<Damage> damages() {
  const auto kCorrupt = ErrorCode::kCorrupt;
  const auto kUnsupported = ErrorCode::kUnsupported;
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  const auto two = [](const std::string& first, const std::string& second) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + first +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}";
  };
  const std::string good = one(R"("BF16")", "[2,3]", "[0,12]");
  std::string deep = R"({"w":)" + std::string(100, '[') + std::string(100, ']') + "}";
  std::string zeros;
  for (int i = 0; i < 4'000'000; ++i) zeros += "0,";
  return {
      {"empty file", "", kCorrupt, {"0 bytes", "8-byte header length"}},
      {"cut in the length field", std::string(3, '\0'), kCorrupt, {"3 bytes"}},
      {"git lfs pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", kCorrupt, {"git lfs pull"}},
      {"header length huge", length_field(~uint64_t{0}) + "{}", kCorrupt, {"18446744073709551615", "100000000"}},
      {"header length just over the limit", length_field(100'000'001) + "{}", kCorrupt, {"100000001"}},
      {"header longer than the file", length_field(1000) + "{}", kCorrupt, {"truncated", "1000", "has 2 after"}},
      {"header empty", length_field(0), kCorrupt, {"header", "not valid JSON"}},
      {"header not JSON", file_bytes("hello", 0), kCorrupt, {"header", "not valid JSON at byte 1"}},
      {"header not UTF-8", file_bytes("{\"\xff\xfe\": 1}", 0), kCorrupt, {"not valid JSON"}},
      {"header a list", file_bytes("[1]", 0), kCorrupt, {"header is array", "expected an object"}},
      {"header nested deeply", file_bytes(deep, 0), kCorrupt, {"nested deeper"}},
      {"header of countless values",
       file_bytes(R"({"w":[)" + zeros + "0]}", 0),
       kCorrupt,
       {"more than 4000000 values"}},
      {"entry not an object", file_bytes(R"({"w":7})", 0), kCorrupt, {"tensor \"w\"", "entry is 7"}},
      {"empty name", file_bytes(R"({"":{}})", 0), kCorrupt, {"empty name"}},
      {"key missing", file_bytes(R"({"w":{"dtype":"U8","shape":[1]}})", 1), kCorrupt, {"\"w\"", "data_offsets"}},
      {"key unknown",
       file_bytes(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"strides":[1]}})", 1),
       kUnsupported,
       {"\"w\"", "strides"}},
      {"tensor twice",
       file_bytes(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                  R"("w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                  1),
       kCorrupt,
       {"\"w\" appears twice"}},
      {"dtype unknown",
       file_bytes(one(R"("F8_E4M3FN")", "[1]", "[0,1]"), 1),
       kUnsupported,
       {"\"w\"", "unknown dtype \"F8_E4M3FN\"", "\"F8_E4M3\""}},
      {"dtype a number", file_bytes(one("3", "[1]", "[0,1]"), 1), kCorrupt, {"\"w\"", "dtype is 3"}},
      {"shape a number", file_bytes(one(R"("U8")", "4", "[0,4]"), 4), kCorrupt, {"\"w\"", "shape is 4"}},
      {"dimension negative", file_bytes(one(R"("U8")", "[-4]", "[0,4]"), 4), kCorrupt, {"\"w\"", "holds -4"}},
      {"dimension fractional", file_bytes(one(R"("U8")", "[4.5]", "[0,4]"), 4), kCorrupt, {"\"w\"", "holds 4.5"}},
      {"dimension over 63 bits",
       file_bytes(one(R"("U8")", "[18446744073709551615]", "[0,4]"), 4),
       kCorrupt,
       {"\"w\"", "18446744073709551615"}},
      {"dimension over 64 bits",
       file_bytes(one(R"("U8")", "[99999999999999999999]", "[0,4]"), 4),
       kCorrupt,
       {"\"w\"", "shape"}},
      {"five dimensions", file_bytes(one(R"("U8")", "[1,1,1,1,1]", "[0,1]"), 1), kUnsupported, {"\"w\"", "5 dim"}},
      {"shape overflows",
       file_bytes(one(R"("F32")", "[4294967296,4294967296]", "[0,4]"), 4),
       kCorrupt,
       {"\"w\"", "overflows 64 bits"}},
      {"bytes overflow",
       file_bytes(one(R"("F64")", "[4611686018427387904]", "[0,0]"), 0),
       kCorrupt,
       {"\"w\"", "overflows 64 bits"}},
      {"size differs from shape",
       file_bytes(one(R"("BF16")", "[2,3]", "[0,11]"), 11),
       kCorrupt,
       {"\"w\"", "[2, 3] of BF16 needs 12 bytes, data_offsets give 11"}},
      {"offsets reversed", file_bytes(one(R"("U8")", "[4]", "[4,0]"), 4), kCorrupt, {"\"w\"", "[4, 0] are reversed"}},
      {"offsets three", file_bytes(one(R"("U8")", "[4]", "[0,4,8]"), 4), kCorrupt, {"\"w\"", "expected [begin, end]"}},
      {"offsets negative", file_bytes(one(R"("U8")", "[4]", "[-4,0]"), 4), kCorrupt, {"\"w\"", "[-4,0]"}},
      {"offsets at the end of 64 bits",
       file_bytes(one(R"("U8")", "[1]", "[9223372036854775806,9223372036854775807]"), 1),
       kCorrupt,
       {"\"w\"", "hole"}},
      {"data truncated",
       file_bytes(good, 11),
       kCorrupt,
       {"truncated", "cut inside tensor \"w\"", "1 of 1 tensors", "fetch the file again"}},
      {"second tensor beyond the end", file_bytes(two("[0,4]", "[4,8]"), 6), kCorrupt, {"truncated", "\"b\""}},
      {"bytes after the data", file_bytes(good, 15), kCorrupt, {"3 bytes after the last tensor"}},
      {"tensors overlap", file_bytes(two("[0,4]", "[2,6]"), 6), kCorrupt, {"\"a\" and \"b\" overlap"}},
      {"tensors share all bytes", file_bytes(two("[0,4]", "[0,4]"), 4), kCorrupt, {"\"a\" and \"b\" overlap"}},
      {"hole between tensors", file_bytes(two("[0,4]", "[5,9]"), 9), kCorrupt, {"hole of 1 bytes", "\"b\""}},
      {"hole at the start", file_bytes(one(R"("U8")", "[4]", "[2,6]"), 6), kCorrupt, {"hole of 2 bytes", "\"w\""}},
      {"metadata not an object", file_bytes(R"({"__metadata__":[]})", 0), kCorrupt, {"__metadata__ is array"}},
      {"metadata not strings", file_bytes(R"({"__metadata__":{"k":1}})", 0), kCorrupt, {"__metadata__", "\"k\""}},
  };
}

TEST(Safetensors, EveryDamageIsNamed) {
  const TempDir dir;
  const fs::path path = dir.path() / "model-00001-of-000163.safetensors";
  for (const Damage& damage : damages()) {
    write_bytes(path, damage.bytes);
    const auto file = SafetensorsFile::open(path);
    ASSERT_FALSE(file.has_value()) << damage.name;
    const Error& error = file.error();
    EXPECT_EQ(error.code, damage.code) << damage.name << ": " << error.message;
    EXPECT_EQ(error.message.find(path.string()), 0u) << damage.name << ": " << error.message;
    for (const std::string& mention : damage.mentions) {
      EXPECT_NE(error.message.find(mention), std::string::npos)
          << damage.name << ": \"" << mention << "\" not in: " << error.message;
    }
  }
}

TEST(Safetensors, NamesWithControlCharactersStayOnOneLine) {
  const TempDir dir;
  write_bytes(dir.path() / "f", file_bytes("{\"a\\n\\u001b[2J\":7}", 0));
  const auto file = SafetensorsFile::open(dir.path() / "f");
  ASSERT_FALSE(file.has_value());
  EXPECT_EQ(file.error().message.find_first_of("\n\x1b"), std::string::npos) << file.error().message;
  write_bytes(dir.path() / "f", file_bytes("{\"" + std::string(100'000, 'n') + "\":7}", 0));
  EXPECT_LT(SafetensorsFile::open(dir.path() / "f").error().message.size(), 600u);
}

TEST(Safetensors, ReadsWhatIsThere) {
  const TempDir dir;
  const std::string header = R"({"__metadata__":{"format":"pt"},"b":{"dtype":"U8","shape":[3],"data_offsets":[4,7]},)"
                             R"("a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},)"
                             R"("none":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]},)"
                             R"("scalar":{"dtype":"U8","shape":[],"data_offsets":[7,8]}}   )";
  write_bytes(dir.path() / "f", length_field(header.size()) + header + "01234567");
  const auto file = SafetensorsFile::open(dir.path() / "f");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  ASSERT_EQ(file->tensors().size(), 4u);
  EXPECT_EQ(file->tensors()[0].name, "a");
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_EQ(file->find("missing"), nullptr);
  ASSERT_NE(file->find("none"), nullptr);
  EXPECT_EQ(file->find("none")->size_bytes(), 0u);
  EXPECT_EQ(file->find("scalar")->shape, Shape());

  const TensorInfo* b = file->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->dtype, DType::kU8);
  EXPECT_EQ(b->data_begin, 8 + header.size() + 4);
  std::string out(3, '\0');
  ASSERT_TRUE(file->read(*b, std::as_writable_bytes(std::span(out))).has_value());
  EXPECT_EQ(out, "456");
  std::string part(2, '\0');
  ASSERT_TRUE(file->read_range(*b, 1, std::as_writable_bytes(std::span(part))).has_value());
  EXPECT_EQ(part, "56");
}

TEST(Safetensors, ReadsOutsideATensorAreRefused) {
  const TempDir dir;
  write_bytes(dir.path() / "f", file_bytes(R"({"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})", 8));
  const auto file = SafetensorsFile::open(dir.path() / "f");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  const TensorInfo& w = file->tensors()[0];
  std::byte buffer[16];
  EXPECT_FALSE(file->read(w, std::span(buffer).first(7)).has_value());
  EXPECT_FALSE(file->read(w, std::span(buffer).first(9)).has_value());
  EXPECT_FALSE(file->read_range(w, 5, std::span(buffer).first(4)).has_value());
  EXPECT_FALSE(file->read_range(w, ~uint64_t{0}, std::span(buffer).first(4)).has_value());
  EXPECT_TRUE(file->read_range(w, 8, {}).has_value());

  // The file shrinks after it was opened: an error of that read, not a crash.
  fs::resize_file(dir.path() / "f", fs::file_size(dir.path() / "f") - 4);
  const auto status = file->read(w, std::span(buffer).first(8));
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kCorrupt);
}

TEST(SafetensorsWriter, WrittenFilesReadBack) {
  const TempDir dir;
  const fs::path path = dir.path() / "model.safetensors";
  const std::vector<TensorToWrite> tensors = {
      {"model.embed_tokens.weight", DType::kBF16, {3, 2}}, {"w", DType::kF8E4M3, {5}}, {"s", DType::kF32, {1, 1}}};
  const std::string data = "ABCDEFGHIJKLabcdeSSSS";
  auto writer = SafetensorsWriter::create(path, tensors, {{"format", "pt"}});
  ASSERT_TRUE(writer.has_value()) << writer.error().message;
  const auto bytes = std::as_bytes(std::span(data));
  ASSERT_TRUE(writer->append(bytes.first(5)).has_value());
  EXPECT_FALSE(writer->finish().has_value()) << "most bytes are missing";
  ASSERT_TRUE(writer->append(bytes.subspan(5)).has_value());
  EXPECT_FALSE(writer->append(bytes.first(1)).has_value()) << "more than described";
  EXPECT_FALSE(fs::exists(path));
  ASSERT_TRUE(writer->finish().has_value());

  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_EQ(file->tensors()[0].data_begin % 8, 0u);
  const TensorInfo* w = file->find("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(w->shape, Shape{5});
  std::string out(5, '\0');
  ASSERT_TRUE(file->read(*w, std::as_writable_bytes(std::span(out))).has_value());
  EXPECT_EQ(out, "abcde");
}

TEST(SafetensorsWriter, RangesMayComeInAnyOrderAndAbandonedFilesVanish) {
  const TempDir dir;
  const std::vector<TensorToWrite> tensors = {{"a", DType::kU8, {2}}, {"b", DType::kU8, {4}}};
  const std::string data = "0123";
  const auto bytes = std::as_bytes(std::span(data));
  {
    auto writer = SafetensorsWriter::create(dir.path() / "f", tensors);
    ASSERT_TRUE(writer.has_value());
    ASSERT_TRUE(writer->write_range(1, 2, bytes.subspan(2)).has_value());
    ASSERT_TRUE(writer->write_range(0, 0, bytes.first(2)).has_value());
    ASSERT_TRUE(writer->write_range(1, 0, bytes.first(2)).has_value());
    EXPECT_FALSE(writer->write_range(1, 3, bytes.first(2)).has_value());
    ASSERT_TRUE(writer->finish().has_value());
  }
  const auto file = SafetensorsFile::open(dir.path() / "f");
  ASSERT_TRUE(file.has_value()) << file.error().message;
  std::string out(4, '\0');
  ASSERT_TRUE(file->read(*file->find("b"), std::as_writable_bytes(std::span(out))).has_value());
  EXPECT_EQ(out, "0123");
  { ASSERT_TRUE(SafetensorsWriter::create(dir.path() / "g", tensors).has_value()); }
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1);
}

}  // namespace
}  // namespace hadal
