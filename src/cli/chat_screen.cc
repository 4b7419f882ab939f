#include "cli/chat_screen.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/utf8.h"

namespace hadal {
namespace {

constexpr std::string_view kDim = "\x1b[2m";
constexpr std::string_view kPlain = "\x1b[0m";

}  // namespace

ScreenStyle ScreenStyle::detect() {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  ScreenStyle style;
  style.is_terminal = ::isatty(STDOUT_FILENO) != 0;
  style.has_colour = style.is_terminal && (no_colour == nullptr || *no_colour == '\0') && term != nullptr &&
                     std::strcmp(term, "dumb") != 0;
  return style;
}

std::string without_controls(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    const size_t size = step.kind == Utf8Step::kIncomplete ? text.size() : step.num_bytes;
    const char32_t c = step.kind == Utf8Step::kValid ? step.code_point : kReplacementCharacter;
    const bool is_control = (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c <= 0x9F);
    if (!is_control) append_utf8(out, c);
    text.remove_prefix(size);
  }
  return out;
}

void ChatScreen::write(std::string_view text) {
  if (text.empty()) return;
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void ChatScreen::begin_answer() {
  has_text_ = false;
  at_line_start_ = true;
}

void ChatScreen::show(ChatStream::Piece piece, std::string_view text) {
  using Piece = ChatStream::Piece;
  if (!style_.is_terminal) {
    if (piece != Piece::kContent) return;
    if (!has_text_) text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
    if (text.empty()) return;
    has_text_ = true;
    at_line_start_ = text.ends_with('\n');
    return write(text);
  }
  std::string shown = without_controls(text);
  if (!has_text_ || piece != last_) {
    // A new part: thoughts, answer, tool call.
    const size_t begin = std::min(shown.find_first_not_of('\n'), shown.size());
    shown.erase(0, begin);
    if (shown.empty()) return;
    if (has_text_) write(at_line_start_ ? "\n" : "\n\n");
    if (piece == Piece::kToolCall) shown = "calls " + shown;
    if (!style_.has_colour && piece == Piece::kReasoning) shown = "[thinking] " + shown;
    if (!style_.has_colour && piece == Piece::kContent && has_text_) shown = "[answer] " + shown;
  }
  has_text_ = true;
  last_ = piece;
  at_line_start_ = shown.ends_with('\n');
  const bool dimmed = style_.has_colour && piece != Piece::kContent;
  write(dimmed ? std::string(kDim) + shown + std::string(kPlain) : shown);
}

void ChatScreen::end_answer() {
  if (!at_line_start_) write("\n");
  at_line_start_ = true;
}

void ChatScreen::note(std::string_view text) {
  if (!style_.is_terminal) return;
  const std::string line = without_controls(text);
  write(style_.has_colour ? std::string(kDim) + line + std::string(kPlain) + "\n" : line + "\n");
}

}  // namespace hadal
