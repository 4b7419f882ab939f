// Asks the user for the next question: one line, several that end in a backslash, or a text between lines of """.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "cli/line_editor.h"

namespace hadal {

// $XDG_STATE_HOME/hadal/chat_history, or below ~/.local/state; empty where neither variable is set.
std::filesystem::path chat_history_file();

// Puts lines together to one text.
class QuestionLines {
 public:
  // Returns the whole text, or nothing when more lines are wanted.
  std::optional<std::string> add(const std::string& line);
  bool has_begun() const { return begun_; }
  void clear() { *this = {}; }

 private:
  std::string text_;
  bool begun_ = false, quoted_ = false;
};

// Single-owner.
class ChatPrompt {
 public:
  explicit ChatPrompt(std::filesystem::path history_file) : history_(std::move(history_file)), editor_(history_) {}

  // Blocks. Nothing when the user ends: Ctrl-D, or Ctrl-C twice.
  std::optional<std::string> read();

 private:
  LineEditor::Line read_line(const std::string& prompt);

  LineHistory history_;
  LineEditor editor_;
  bool warned_ = false;
};

}  // namespace hadal
