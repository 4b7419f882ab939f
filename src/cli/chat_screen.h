// Shows an answer while it comes.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "cli/chat_stream.h"

namespace hadal {

struct ScreenStyle {
  bool is_terminal = false;  // else: nothing but the answer's text, without line breaks before it
  bool has_colour = false;   // dimmed thoughts; else they stand between marks

  // Of standard output. NO_COLOR (no-color.org) and TERM=dumb are obeyed.
  static ScreenStyle detect();
};

// Single-owner; writes to standard output at once.
class ChatScreen {
 public:
  explicit ChatScreen(ScreenStyle style) : style_(style) {}

  void begin_answer();
  void show(ChatStream::Piece piece, std::string_view text);
  // Ends the line.
  void end_answer();
  // A line about the conversation, dimmed. Nothing where standard output is no terminal.
  void note(std::string_view text);

 private:
  void write(std::string_view text);

  const ScreenStyle style_;
  bool has_text_ = false;  // of the running answer
  bool at_line_start_ = true;
  ChatStream::Piece last_ = ChatStream::Piece::kContent;
};

// Without control characters but line breaks and tabs: a model's text must not move the cursor, or worse.
std::string without_controls(std::string_view text);

}  // namespace hadal
