// Bytes from a terminal in raw mode to keys. Definition: ECMA-48 control sequences as xterm sends them, and its
// bracketed paste. No I/O.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace hadal {

enum class Key {
  kText,  // `text`: one character, or all of a paste
  kEnter,
  kNewLine,  // Alt-Enter
  kBackspace,
  kDelete,
  kLeft,
  kRight,
  kUp,
  kDown,
  kHome,
  kEnd,
  kWordLeft,
  kWordRight,
  kEraseWord,     // before the cursor: Ctrl-W
  kEraseToStart,  // Ctrl-U
  kEraseToEnd,    // Ctrl-K
  kClearScreen,   // Ctrl-L
  kInterrupt,     // Ctrl-C
  kEndOfFile,     // Ctrl-D
};

struct KeyPress {
  Key key;
  std::string text;
};

// Single-owner. Keys without meaning here are dropped; so is what is no UTF-8.
class KeyDecoder {
 public:
  void push(std::string_view bytes) { pending_ += bytes; }
  // The next whole key; nothing until more bytes come.
  std::optional<KeyPress> next();

 private:
  enum class Step { kKey, kDropped, kIncomplete };
  Step step(KeyPress* press);
  Step step_escape(KeyPress* press);
  Step step_sequence(KeyPress* press);
  Step step_paste(size_t begin, KeyPress* press);

  std::string pending_;
};

}  // namespace hadal
