// The line that a user edits, where its characters stand on the screen, and the lines of before. No I/O but the
// history's file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "cli/line_keys.h"

namespace hadal {

// Lines of before, the newest last. The file has one line each, '\n' and '\\' escaped, and is the user's alone (0600).
class LineHistory {
 public:
  static constexpr size_t kMaxLines = 1000;

  // "": nothing is kept. A file that cannot be read counts as empty.
  explicit LineHistory(std::filesystem::path file = {});

  // Leaves out empty lines and repetitions. Errors: kIo (the line is remembered all the same).
  Status add(const std::string& line);
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  std::filesystem::path file_;
  std::vector<std::string> lines_;
};

// Single-owner.
class LineBuffer {
 public:
  explicit LineBuffer(const std::vector<std::string>& history) : history_(history), at_(history.size()) {}

  enum class Outcome { kGoesOn, kSubmitted, kInterrupted, kEnded };  // kEnded: Ctrl-D on an empty line
  Outcome apply(const KeyPress& press);

  const std::string& text() const { return text_; }
  size_t cursor() const { return cursor_; }  // byte offset, between two characters

 private:
  size_t before(size_t at) const;
  size_t after(size_t at) const;
  size_t word_left() const;
  size_t word_right() const;
  void erase(size_t begin, size_t end);
  void move_in_history(int step);

  const std::vector<std::string>& history_;
  size_t at_;          // history_.size(): the line of now
  std::string draft_;  // the line of now, while another is shown
  std::string text_;   // valid UTF-8
  size_t cursor_ = 0;
};

struct ScreenPosition {
  int row = 0, column = 0;
};
// Where the cursor stands after `text` was written from `from` on, on a screen of so many columns. Wide characters
// (East Asian, emoji) take two.
ScreenPosition position_after(std::string_view text, ScreenPosition from, int num_columns);
int character_width(char32_t c);

}  // namespace hadal
