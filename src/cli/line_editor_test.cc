// Keys, the edited line, the history, and where characters stand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/file.h"
#include "cli/line_buffer.h"
#include "cli/line_keys.h"

namespace hadal {
namespace {

using ::testing::ElementsAre;
using Outcome = LineBuffer::Outcome;

std::string typed(std::string_view bytes, const std::vector<std::string>& history = {}, size_t cut = 1) {
  KeyDecoder keys;
  LineBuffer buffer(history);
  for (size_t i = 0; i < bytes.size(); i += cut) {
    keys.push(bytes.substr(i, cut));
    while (auto press = keys.next()) buffer.apply(*press);
  }
  std::string text = buffer.text();
  return text.insert(buffer.cursor(), "|");
}

TEST(LineEditor, EditsCharactersNotBytes) {
  const std::pair<std::string, std::string> cases[] = {{"abc", "abc|"},
                                                       {"中文字\x1b[D\x7f", "中|字"},
                                                       {"中文\x1b[D\x1b[D\x1b[3~", "|文"},
                                                       {"one two three\x17", "one two |"},
                                                       {"one two\x1b"
                                                        "bX",
                                                        "one X|two"},
                                                       {"one two\x01\x1b"
                                                        "f!",
                                                        "one!| two"},
                                                       {"one two\x1b[1;5D\x0b", "one |"},
                                                       {"one two\x1b[1;5D\x15", "|two"},
                                                       {"ab\x1b[H\x1b[C-\x1b[F.", "a-b.|"},
                                                       {"ab\x02\x02\x04", "|b"},
                                                       {"a\x1b\rb", "a\nb|"},
                                                       {"a\x1b[200~x\r\ny\x1b[A\x1b[201~b", "ax\ny[Ab|"},
                                                       {"a\xff\x80\x1b[99;99Zb\x1b[5~", "ab|"},
                                                       {"\x7f\x1b[D\x1b[3~\x17\x15", "|"}};
  for (const auto& [bytes, shown] : cases) {
    for (const size_t cut : {size_t{1}, size_t{3}, size_t{100}}) EXPECT_EQ(typed(bytes, {}, cut), shown) << bytes;
  }
}

TEST(LineEditor, ArrowsWalkTheHistoryAndComeBack) {
  const std::vector<std::string> history = {"first", "second"};
  EXPECT_EQ(typed("draft\x1b[A", history), "second|");
  EXPECT_EQ(typed("draft\x1b[A\x1b[A\x1b[A", history), "first|");
  EXPECT_EQ(typed("draft\x1b[A\x1b[A\x1b[B\x1b[B\x1b[B", history), "draft|");
  EXPECT_EQ(typed("\x1b[A!", history), "second!|");
}

TEST(LineEditor, SaysHowTheLineEnds) {
  const std::vector<std::string> none;
  const auto outcome = [&](std::string_view bytes) {
    KeyDecoder keys;
    keys.push(bytes);
    LineBuffer buffer(none);
    Outcome last = Outcome::kGoesOn;
    while (auto press = keys.next()) last = buffer.apply(*press);
    return last;
  };
  EXPECT_EQ(outcome("a\r"), Outcome::kSubmitted);
  EXPECT_EQ(outcome("\n"), Outcome::kSubmitted);
  EXPECT_EQ(outcome("a\x03"), Outcome::kInterrupted);
  EXPECT_EQ(outcome("\x04"), Outcome::kEnded);
  EXPECT_EQ(outcome("a\x04"), Outcome::kGoesOn);
}

TEST(LineEditor, SequencesThatNeverEndAreDropped) {
  EXPECT_EQ(typed("\x1b[" + std::string(1000, '1') + "xab", {}, 1000).back(), '|');
  KeyDecoder keys;
  keys.push("\x1b");
  EXPECT_FALSE(keys.next());
  keys.push("\x1b[A");
  ASSERT_TRUE(keys.next());
}

TEST(LineEditor, PositionsCountColumns) {
  const auto at = [](std::string_view text, int columns) {
    const ScreenPosition p = position_after(text, {}, columns);
    return std::pair(p.row, p.column);
  };
  EXPECT_EQ(at("> abc", 80), std::pair(0, 5));
  EXPECT_EQ(at("中文a", 80), std::pair(0, 5));
  EXPECT_EQ(at("e\u0301", 80), std::pair(0, 1));
  EXPECT_EQ(at("12345", 5), std::pair(0, 5));
  EXPECT_EQ(at("123456", 5), std::pair(1, 1));
  EXPECT_EQ(at("1234中", 5), std::pair(1, 2));  // does not fit: wraps as a whole
  EXPECT_EQ(at("a\nbc", 80), std::pair(1, 2));
  EXPECT_EQ(at("a\tb", 80), std::pair(0, 9));
  EXPECT_EQ(at("🙂", 80), std::pair(0, 2));
}

class HistoryFile : public ::testing::Test {
 protected:
  std::filesystem::path folder_ = std::filesystem::path(::testing::TempDir()) / "line_history_test";
  std::filesystem::path file_ = folder_ / "deep/history";
  void SetUp() override { std::filesystem::remove_all(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
};

TEST_F(HistoryFile, KeepsLinesForTheUserAlone) {
  {
    LineHistory history(file_);
    EXPECT_TRUE(history.lines().empty());
    for (const char* line : {"one", "one", "", "two\nlines \\n", "中"}) EXPECT_TRUE(history.add(line));
  }
  EXPECT_THAT(LineHistory(file_).lines(), ElementsAre("one", "two\nlines \\n", "中"));
  struct stat info {};
  ASSERT_EQ(::stat(file_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(HistoryFile, LeavesOutWhatNobodyTyped) {
  std::filesystem::create_directories(file_.parent_path());
  ASSERT_TRUE(write_file_atomically(file_, "good\n\x1b[2Jbad\n\xff\n\nlast\\"));
  EXPECT_THAT(LineHistory(file_).lines(), ElementsAre("good", "last\\"));
}

TEST_F(HistoryFile, IsBounded) {
  std::filesystem::create_directories(file_.parent_path());
  std::string many;
  for (size_t i = 0; i < LineHistory::kMaxLines + 10; ++i) many += std::to_string(i) + "\n";
  ASSERT_TRUE(write_file_atomically(file_, many));
  EXPECT_EQ(LineHistory(file_).lines().front(), "10");
  EXPECT_LT(read_file(file_, 1 << 20)->size(), many.size());
  ASSERT_TRUE(write_file_atomically(file_, std::string(size_t{5} << 20, 'x')));
  EXPECT_TRUE(LineHistory(file_).lines().empty());
}

}  // namespace
}  // namespace hadal
