#include "quant/convert_journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

const Json kConversion = {{"method", "exact"}};

ShardRecord record_of(const std::string& name) {
  return {.file_name = name,
          .source = {.size_bytes = 12, .mtime_ns = -3, .header_hash = UINT64_MAX},
          .output = {.size_bytes = 13, .mtime_ns = 0, .header_hash = 7},
          .sidecar_bytes = 99,
          .tensors = {{"a \"name\"", {.num_codes = 5, .num_inexact = 2, .num_nan = 1, .max_relative_error = 0.1}}}};
}

std::string text_of(const TempDir& dir) { return *read_file(dir.path() / kConvertJournalName, 1 << 20); }
void set_text(const TempDir& dir, std::string_view text) {
  ASSERT_TRUE(write_file_atomically(dir.path() / kConvertJournalName, text));
}

// A journal with two shards, complete; closed.
void write_sample(const TempDir& dir) {
  auto journal = ConvertJournal::open(dir.path(), kConversion);
  ASSERT_TRUE(journal) << journal.error().message;
  ASSERT_TRUE(journal->add(record_of("one")));
  ASSERT_TRUE(journal->add(record_of("two")));
  ASSERT_TRUE(journal->mark_complete());
}

TEST(ConvertJournal, RemembersWhatWasWritten) {
  const TempDir dir;
  write_sample(dir);
  const auto journal = ConvertJournal::open(dir.path(), kConversion);
  ASSERT_TRUE(journal) << journal.error().message;
  EXPECT_TRUE(journal->is_complete());
  ASSERT_NE(journal->find("two"), nullptr);
  EXPECT_EQ(journal->find("three"), nullptr);
  const ShardRecord& record = *journal->find("one");
  EXPECT_EQ(record.source, record_of("one").source);
  EXPECT_EQ(record.output, record_of("one").output);
  EXPECT_EQ(record.sidecar_bytes, 99u);
  ASSERT_EQ(record.tensors.size(), 1u);
  EXPECT_EQ(record.tensors[0].name, "a \"name\"");
  EXPECT_EQ(record.tensors[0].stats.num_inexact, 2u);
  EXPECT_EQ(record.tensors[0].stats.max_relative_error, 0.1);
}

// Whatever the last write left: no shard counts as done whose line is not whole, and the journal can be gone on with.
TEST(ConvertJournal, EveryTornEndIsDropped) {
  const TempDir dir;
  write_sample(dir);
  const std::string whole = text_of(dir);
  const size_t first_line = whole.find('\n') + 1, second_line = whole.find('\n', first_line) + 1;
  for (size_t size = first_line; size < whole.size(); ++size) {
    set_text(dir, std::string_view(whole).substr(0, size));
    {
      auto journal = ConvertJournal::open(dir.path(), kConversion);
      ASSERT_TRUE(journal) << size;
      EXPECT_EQ(journal->find("one") != nullptr, size >= second_line) << size;
      EXPECT_FALSE(journal->is_complete()) << size;
      for (const char* name : {"one", "two"}) {
        const bool done = journal->find(name) != nullptr || journal->add(record_of(name)).has_value();
        ASSERT_TRUE(done) << size;
      }
      ASSERT_TRUE(journal->mark_complete());
    }
    ASSERT_EQ(text_of(dir), whole) << size;
  }
}

TEST(ConvertJournal, EveryChangedByteIsDroppedOrRefused) {
  const TempDir dir;
  write_sample(dir);
  const std::string whole = text_of(dir);
  const size_t first_line = whole.find('\n') + 1;
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    set_text(dir, damaged);
    const auto journal = ConvertJournal::open(dir.path(), kConversion);
    EXPECT_EQ(journal.has_value(), at >= first_line) << at;
    if (journal) {
      EXPECT_FALSE(journal->is_complete()) << at;
    }
  }
}

TEST(ConvertJournal, RefusesOtherWorkAndSaysWhat) {
  const TempDir dir;
  write_sample(dir);
  const auto other = ConvertJournal::open(dir.path(), {{"method", "seed"}});
  ASSERT_FALSE(other);
  EXPECT_THAT(other.error().message, HasSubstr("begun as {\"method\":\"exact\"}, now {\"method\":\"seed\"}"));
  EXPECT_EQ(other.error().code, ErrorCode::kInvalidArgument);
}

TEST(ConvertJournal, RefusesAFolderOfOthers) {
  const TempDir dir;
  std::ofstream(dir.path() / "thesis.txt") << "mine";
  const auto journal = ConvertJournal::open(dir.path(), kConversion);
  ASSERT_FALSE(journal);
  EXPECT_THAT(journal.error().message, HasSubstr("not empty"));
}

TEST(ConvertJournal, OneProcessAtATime) {
  const TempDir dir;
  const auto first = ConvertJournal::open(dir.path(), kConversion);
  ASSERT_TRUE(first);
  const auto second = ConvertJournal::open(dir.path(), kConversion);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace hadal
