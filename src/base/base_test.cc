#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "base/names.h"
#include "base/utf8.h"
#include "support/test_files.h"

namespace hadal {
namespace {

TEST(Json, KeepsKeyOrder) {
  const auto parsed = parse_json(R"({"b": 1, "a": [true, null, 1.5, "x"]})");
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(dump_json(*parsed), R"({"b":1,"a":[true,null,1.5,"x"]})");
}

TEST(Json, RefusesDepthSizeDuplicatesAndGarbage) {
  EXPECT_FALSE(parse_json(std::string(1000, '[')).has_value());
  EXPECT_FALSE(parse_json("[[[1]]]", {.max_depth = 2}).has_value());
  EXPECT_TRUE(parse_json("[[1]]", {.max_depth = 2}).has_value());
  EXPECT_FALSE(parse_json("[1, 2]", {.max_bytes = 3}).has_value());
  EXPECT_FALSE(parse_json("[1, 2]", {.max_values = 2}).has_value());
  EXPECT_TRUE(parse_json("[1, 2]", {.max_values = 3}).has_value());
  EXPECT_FALSE(parse_json(R"({"a":1,"a":2})", {.refuse_duplicate_keys = true}).has_value());
  EXPECT_TRUE(parse_json(R"({"a":1,"b":{"a":2}})", {.refuse_duplicate_keys = true}).has_value());
  for (const char* bad : {"", "{", "nul", "{\"a\" 1}", "[1] x", "\"\xff\""}) {
    const auto parsed = parse_json(bad);
    ASSERT_FALSE(parsed.has_value()) << bad;
    EXPECT_FALSE(parsed.error().message.empty());
  }
}

TEST(Json, DumpReplacesInvalidUtf8) { EXPECT_EQ(dump_json(Json("a\xff")), "\"a\xEF\xBF\xBD\""); }

TEST(Utf8, ReplacesMaximalInvalidParts) {
  EXPECT_EQ(to_valid_utf8("a\xF0\x9F\x98" "b\xC0\xAF"), "a\uFFFD" "b\uFFFD\uFFFD");
  EXPECT_EQ(decode_utf8("\xE4\xB8").kind, Utf8Step::kIncomplete);
  EXPECT_EQ(decode_utf8("\xED\xA0\x80").kind, Utf8Step::kInvalid);
  EXPECT_EQ(decode_utf8("中").code_point, U'中');
  EXPECT_EQ(find_invalid_utf8("né\xff"), 3u);
}

TEST(Names, SuggestsOnlyNearOnes) {
  const std::vector<std::string> known = {"--max-model-len", "--max-num-seqs", "--port"};
  EXPECT_EQ(closest_name("--max_model_len", known), "--max-model-len");
  EXPECT_EQ(closest_name("--prot", known), "--port");
  EXPECT_EQ(closest_name("--zebra", known), "");
}

TEST(File, RefusesWhatIsNotARegularFileAndReadsPastTheEnd) {
  const TempDir dir;
  EXPECT_EQ(File::open(dir.path() / "absent").error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(File::open(dir.path()).has_value());
  ASSERT_TRUE(write_file_atomically(dir.path() / "f", "hello").has_value());
  const auto file = File::open(dir.path() / "f");
  ASSERT_TRUE(file.has_value());
  std::byte buffer[4];
  EXPECT_TRUE(file->read_at(1, buffer).has_value());
  EXPECT_EQ(file->read_at(2, buffer).error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(file->read_at(~uint64_t{0}, buffer).error().code, ErrorCode::kCorrupt);
  EXPECT_FALSE(read_file(dir.path() / "f", 4).has_value());
  EXPECT_EQ(*read_file(dir.path() / "f", 5), "hello");
}

}  // namespace
}  // namespace hadal
