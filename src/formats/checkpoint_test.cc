#include "formats/checkpoint.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>

#include "base/file.h"
#include "formats/safetensors_writer.h"
#include "support/test_files.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

// A shard of U8 tensors of four bytes each, every byte the first letter of the tensor's name.
void write_shard(const fs::path& path, const std::vector<std::string>& names) {
  std::vector<TensorToWrite> tensors;
  std::string data;
  for (const std::string& name : names) {
    tensors.push_back({name, DType::kU8, {4}});
    data += std::string(4, name[0]);
  }
  auto writer = SafetensorsWriter::create(path, tensors);
  ASSERT_TRUE(writer.has_value()) << writer.error().message;
  ASSERT_TRUE(writer->append(std::as_bytes(std::span(data))).has_value());
  ASSERT_TRUE(writer->finish().has_value());
}

void write_text(const fs::path& path, const std::string& text) {
  ASSERT_TRUE(write_file_atomically(path, text).has_value());
}

constexpr const char* kShard1 = "model-00001-of-000002.safetensors";
constexpr const char* kShard2 = "model-00002-of-000002.safetensors";

std::string index_of(const std::string& weight_map) {
  return R"({"metadata":{"total_size":12},"weight_map":{)" + weight_map + "}}";
}
const std::string kGoodMap = R"("a":"model-00001-of-000002.safetensors","b":"model-00002-of-000002.safetensors",)"
                             R"("c":"model-00001-of-000002.safetensors")";

// Two shards and their index: a and c in the first, b in the second.
void write_good_folder(const fs::path& dir) {
  write_shard(dir / kShard1, {"c", "a"});
  write_shard(dir / kShard2, {"b"});
  write_text(dir / kCheckpointIndexName, index_of(kGoodMap));
}

TEST(Checkpoint, OpensByTheIndex) {
  const TempDir dir;
  write_good_folder(dir.path());
  write_text(dir.path() / "other.safetensors", "not named by the index, so not opened");
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  ASSERT_EQ(checkpoint->entries().size(), 3u);
  EXPECT_EQ(checkpoint->entries()[0].info.name, "a");
  EXPECT_EQ(checkpoint->shards().size(), 2u);
  EXPECT_EQ(checkpoint->total_tensor_bytes(), 12u);
  const auto* b = checkpoint->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(checkpoint->shard_of(*b).path().filename(), kShard2);
  std::string out(4, '\0');
  ASSERT_TRUE(checkpoint->read(*b, std::as_writable_bytes(std::span(out))).has_value());
  EXPECT_EQ(out, "bbbb");
  EXPECT_EQ(checkpoint->find("d"), nullptr);
}

TEST(Checkpoint, OpensASingleFile) {
  const TempDir dir;
  write_shard(dir.path() / kCheckpointSingleName, {"x", "w"});
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_NE(checkpoint->find("w"), nullptr);
  EXPECT_EQ(checkpoint->entries().size(), 2u);
}

TEST(Checkpoint, FollowsTheLinksOfAHuggingFaceCache) {
  const TempDir dir;
  fs::create_directories(dir.path() / "blobs");
  fs::create_directories(dir.path() / "snapshots/abc");
  write_good_folder(dir.path() / "blobs");
  for (const char* name : {kShard1, kShard2, kCheckpointIndexName}) {
    fs::rename(dir.path() / "blobs" / name, dir.path() / "blobs" / ("hash-" + std::string(name)));
    fs::create_symlink("../../blobs/hash-" + std::string(name), dir.path() / "snapshots/abc" / name);
  }
  const auto checkpoint = Checkpoint::open(dir.path() / "snapshots/abc");
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->entries().size(), 3u);
}

// One kind of damage done to a good folder, and what the message must say.
struct Damage {
  const char* name;
  std::function<void(const fs::path&)> damage;
  ErrorCode code;
  std::vector<std::string> mentions;
};

Damage bad_index(const char* name, std::string index, ErrorCode code, std::vector<std::string> mentions) {
  mentions.insert(mentions.begin(), kCheckpointIndexName);
  return {name, [index](const fs::path& dir) { write_text(dir / kCheckpointIndexName, index); }, code,
          std::move(mentions)};
}

Damage bad_shard_name(const char* shard, const char* why) {
  return bad_index(shard, index_of(kGoodMap + R"(,"d":")" + shard + "\""), ErrorCode::kCorrupt, {shard, why});
}

std::vector<Damage> damages() {
  const auto kCorrupt = ErrorCode::kCorrupt;
  return {
      {"index and single file missing",
       [](const fs::path& dir) { fs::remove(dir / kCheckpointIndexName); },
       ErrorCode::kNotFound,
       {kCheckpointIndexName, kCheckpointSingleName, "2 other .safetensors files"}},
      {"folder missing", [](const fs::path& dir) { fs::remove_all(dir); }, ErrorCode::kNotFound, {"does not exist"}},
      {"folder a file",
       [](const fs::path& dir) {
         fs::remove_all(dir);
         write_text(dir, "x");
       },
       ErrorCode::kInvalidArgument,
       {"not a directory"}},
      {"index a directory",
       [](const fs::path& dir) {
         fs::remove(dir / kCheckpointIndexName);
         fs::create_directory(dir / kCheckpointIndexName);
       },
       ErrorCode::kInvalidArgument,
       {kCheckpointIndexName, "not a regular file"}},
      bad_index("index empty", "", kCorrupt, {"not valid JSON"}),
      bad_index("index cut", R"({"weight_map":{"a":"mod)", kCorrupt, {"not valid JSON"}),
      bad_index("index a list", "[]", kCorrupt, {"no \"weight_map\""}),
      bad_index("no weight_map", R"({"metadata":{}})", kCorrupt, {"no \"weight_map\""}),
      bad_index("weight_map a list", R"({"weight_map":[1]})", kCorrupt, {"weight_map is [1]"}),
      bad_index("weight_map empty", R"({"weight_map":{}})", kCorrupt, {"weight_map is empty"}),
      bad_index("file not a string", index_of(kGoodMap + R"(,"d":7)"), kCorrupt, {"\"d\" in 7"}),
      bad_index("tensor twice", index_of(kGoodMap + R"(,"a":"x.safetensors")"), kCorrupt, {"\"a\" appears twice"}),
      bad_shard_name("../model-00001-of-000002.safetensors", "leads out of the folder"),
      bad_shard_name("sub/../../x.safetensors", "leads out of the folder"),
      bad_shard_name("..", "leads out of the folder"),
      bad_shard_name("/etc/passwd", "an absolute path"),
      bad_shard_name("sub/x.safetensors", "a path with directories"),
      bad_shard_name("", "empty"),
      bad_shard_name("a\\u0000b", "NUL"),
      bad_index("names a missing file", index_of(kGoodMap + R"(,"d":"model-00003-of-000002.safetensors")"),
                ErrorCode::kNotFound, {"model-00003-of-000002.safetensors: does not exist", "1 tensors"}),
      bad_index("names a file that is no shard", index_of(kGoodMap + R"(,"d":"model.safetensors.index.json")"),
                kCorrupt, {"header length"}),
      bad_index("tensor not in its shard", index_of(kGoodMap + R"(,"d":"model-00002-of-000002.safetensors")"), kCorrupt,
                {kShard2, "\"d\" is not in this shard"}),
      bad_index("tensor in the other shard",
                index_of(R"("a":"model-00002-of-000002.safetensors","b":"model-00002-of-000002.safetensors",)"
                         R"("c":"model-00001-of-000002.safetensors")"),
                kCorrupt, {kShard2, "\"a\" is not in this shard", "it is in model-00001-of-000002.safetensors"}),
      bad_index("tensor not listed",
                index_of(R"("b":"model-00002-of-000002.safetensors","c":"model-00001-of-000002.safetensors")"),
                kCorrupt, {kShard1, "holds tensor \"a\""}),
      {"tensor in two shards",
       [](const fs::path& dir) {
         write_shard(dir / kShard2, {"b", "a"});
       },
       kCorrupt,
       {kShard2, "holds tensor \"a\"", "places in model-00001-of-000002.safetensors"}},
      {"shard missing",
       [](const fs::path& dir) { fs::remove(dir / kShard1); },
       ErrorCode::kNotFound,
       {kShard1, "does not exist", "2 tensors"}},
      {"shard empty", [](const fs::path& dir) { fs::resize_file(dir / kShard1, 0); }, kCorrupt, {kShard1, "0 bytes"}},
      {"shard truncated",
       [](const fs::path& dir) { fs::resize_file(dir / kShard1, fs::file_size(dir / kShard1) - 1); },
       kCorrupt,
       {kShard1, "truncated", "\"a\""}},
      {"shard a directory",
       [](const fs::path& dir) {
         fs::remove(dir / kShard2);
         fs::create_directory(dir / kShard2);
       },
       ErrorCode::kInvalidArgument,
       {kShard2, "not a regular file"}},
      {"shard a link to itself",
       [](const fs::path& dir) {
         fs::remove(dir / kShard2);
         fs::create_symlink(kShard2, dir / kShard2);
       },
       ErrorCode::kIo,
       {kShard2, "symbolic links"}},
      {"shards linked in a circle",
       [](const fs::path& dir) {
         fs::remove(dir / kShard2);
         fs::create_symlink("other", dir / kShard2);
         fs::create_symlink(kShard2, dir / "other");
       },
       ErrorCode::kIo,
       {kShard2, "symbolic links"}},
      {"shard a broken link",
       [](const fs::path& dir) {
         fs::remove(dir / kShard2);
         fs::create_symlink("../blobs/gone", dir / kShard2);
       },
       ErrorCode::kNotFound,
       {kShard2, "../blobs/gone"}},
      {"index a link to itself",
       [](const fs::path& dir) {
         fs::remove(dir / kCheckpointIndexName);
         fs::create_symlink(kCheckpointIndexName, dir / kCheckpointIndexName);
       },
       ErrorCode::kIo,
       {kCheckpointIndexName, "symbolic links"}},
  };
}

TEST(Checkpoint, EveryDamageIsNamed) {
  for (const Damage& damage : damages()) {
    const TempDir parent;
    const fs::path dir = parent.path() / "model";
    fs::create_directory(dir);
    write_good_folder(dir);
    damage.damage(dir);
    const auto checkpoint = Checkpoint::open(dir);
    ASSERT_FALSE(checkpoint.has_value()) << damage.name;
    const Error& error = checkpoint.error();
    EXPECT_EQ(error.code, damage.code) << damage.name << ": " << error.message;
    EXPECT_EQ(error.message.find(dir.string()), 0u) << damage.name << ": " << error.message;
    for (const std::string& mention : damage.mentions) {
      EXPECT_NE(error.message.find(mention), std::string::npos)
          << damage.name << ": \"" << mention << "\" not in: " << error.message;
    }
  }
}

TEST(Checkpoint, AllProblemsAreCollectedAndTheRestStaysReadable) {
  const TempDir dir;
  write_good_folder(dir.path());
  write_text(dir.path() / kCheckpointIndexName,
             index_of(kGoodMap + R"(,"d":"gone.safetensors","e":"gone.safetensors","f":"../x","g":7)"));
  fs::resize_file(dir.path() / kShard2, 3);
  std::vector<Error> problems;
  const Checkpoint checkpoint = Checkpoint::open_collecting(dir.path(), problems);
  // The missing file once (not for d and e each), the traversal, the number, the truncated shard (not its tensor b).
  EXPECT_EQ(problems.size(), 4u);
  for (const Error& problem : problems) SCOPED_TRACE(problem.message);
  EXPECT_EQ(checkpoint.entries().size(), 2u);
  EXPECT_NE(checkpoint.find("a"), nullptr);

  const auto first = Checkpoint::open(dir.path());
  ASSERT_FALSE(first.has_value());
  EXPECT_NE(first.error().message.find("(and 3 more problems)"), std::string::npos) << first.error().message;
}

TEST(Checkpoint, TooManyShardsAreRefusedBeforeOpeningAny) {
  const TempDir dir;
  std::string map;
  for (int i = 0; i < 1001; ++i) map += fmt::format("{}\"t{}\":\"s{}\"", i > 0 ? "," : "", i, i);
  write_text(dir.path() / kCheckpointIndexName, index_of(map));
  std::vector<Error> problems;
  Checkpoint::open_collecting(dir.path(), problems);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].message.find("names 1001 files"), std::string::npos) << problems[0].message;
}

}  // namespace
}  // namespace hadal
