#include "cli/line_editor.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace hadal {
namespace {

termios g_before;
std::atomic<bool> g_is_raw{false};

void write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (count < 0 && errno != EINTR) return;
    if (count > 0) bytes.remove_prefix(static_cast<size_t>(count));
  }
}

class RawMode {
 public:
  RawMode() {
    if (::tcgetattr(STDIN_FILENO, &g_before) != 0) return;
    termios raw = g_before;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO | ISIG | IEXTEN);
    raw.c_iflag &= ~static_cast<tcflag_t>(IXON | ICRNL | INLCR);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) != 0) return;
    g_is_raw = true;
    write_all("\x1b[?2004h");  // pastes come in brackets
  }
  ~RawMode() { restore_terminal(); }
};

ScreenPosition screen_size() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return {24, 80};
  return {std::max<int>(size.ws_row, 2), std::max<int>(size.ws_col, 10)};
}

std::string up(int rows) { return rows > 0 ? fmt::format("\x1b[{}A", rows) : ""; }
std::string right(int columns) { return columns > 0 ? fmt::format("\x1b[{}C", columns) : ""; }

// A position just behind the last column is the next row's first.
ScreenPosition wrapped(ScreenPosition at, int num_columns) {
  return at.column < num_columns ? at : ScreenPosition{at.row + 1, 0};
}

}  // namespace

bool can_edit_lines() {
  const char* term = std::getenv("TERM");
  const bool is_dumb = term == nullptr || std::strcmp(term, "dumb") == 0 || *term == '\0';
  return ::isatty(STDIN_FILENO) != 0 && ::isatty(STDOUT_FILENO) != 0 && !is_dumb;
}

void restore_terminal() {
  if (!g_is_raw.exchange(false)) return;
  write_all("\x1b[?2004l");
  ::tcsetattr(STDIN_FILENO, TCSADRAIN, &g_before);
}

LineEditor::Line LineEditor::read(const std::string& prompt) {
  const RawMode raw;
  LineBuffer buffer(history_.lines());
  cursor_row_ = 0;
  draw(prompt, buffer);
  for (;;) {
    while (auto press = keys_.next()) {
      if (press->key == Key::kClearScreen) {
        write_all("\x1b[H\x1b[2J");
        cursor_row_ = 0;
      }
      const LineBuffer::Outcome outcome = buffer.apply(*press);
      if (outcome != LineBuffer::Outcome::kGoesOn) {
        buffer.apply({Key::kEnd, ""});
        draw(prompt, buffer);
        write_all("\r\n");
        return {outcome, buffer.text()};
      }
    }
    draw(prompt, buffer);
    char bytes[4096];
    const ssize_t count = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return {LineBuffer::Outcome::kEnded, buffer.text()};
    keys_.push(std::string_view(bytes, static_cast<size_t>(count)));
  }
}

void LineEditor::draw(const std::string& prompt, const LineBuffer& buffer) {
  const ScreenPosition size = screen_size();
  std::string text = buffer.text();
  size_t cursor = buffer.cursor();
  ScreenPosition end = position_after(prompt + text, {}, size.column);
  if (end.row >= size.row) {  // taller than the screen: said in a word, since what scrolled away can't be redrawn
    text = fmt::format("[{} bytes in {} lines]", text.size(), 1 + std::count(text.begin(), text.end(), '\n'));
    cursor = text.size();
    end = position_after(prompt + text, {}, size.column);
  }
  std::string out = up(cursor_row_) + "\r\x1b[J" + prompt;
  for (const char c : text) out += c == '\n' ? std::string("\r\n") : std::string(1, c);
  if (end.column >= size.column) out += "\r\n";
  end = wrapped(end, size.column);
  const ScreenPosition at = wrapped(position_after(prompt + text.substr(0, cursor), {}, size.column), size.column);
  out += up(end.row - at.row) + "\r" + right(at.column);
  write_all(out);
  cursor_row_ = at.row;
}

}  // namespace hadal
