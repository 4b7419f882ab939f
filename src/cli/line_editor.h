// Reads a line from a terminal, with editing and history. While it reads, the terminal is in raw mode and Ctrl-C is a
// key, not a signal.
#pragma once

#include <string>

#include "cli/line_buffer.h"
#include "cli/line_keys.h"

namespace hadal {

// Single-owner. One per process: the terminal's settings are the process's.
class LineEditor {
 public:
  // Standard input and output must be terminals. `history` outlives the editor.
  explicit LineEditor(LineHistory& history) : history_(history) {}

  struct Line {
    LineBuffer::Outcome how = LineBuffer::Outcome::kSubmitted;  // not kGoesOn
    std::string text;
  };
  // Blocks until the line is submitted or given up. `prompt` has no control characters. The caller adds lines to the
  // history.
  Line read(const std::string& prompt);

 private:
  void draw(const std::string& prompt, const LineBuffer& buffer);

  LineHistory& history_;
  KeyDecoder keys_;     // keeps what was typed ahead
  int cursor_row_ = 0;  // of the drawn lines, from the prompt's
};

// True when standard input and output are terminals that know cursor movements.
bool can_edit_lines();

// Undoes raw mode, from any thread; for programs that end at once.
void restore_terminal();

}  // namespace hadal
