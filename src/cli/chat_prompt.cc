#include "cli/chat_prompt.h"

#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "base/utf8.h"

namespace hadal {
namespace {

constexpr std::string_view kQuotes = "\"\"\"";

}  // namespace

std::filesystem::path chat_history_file() {
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  if (state != nullptr && *state == '/') return std::filesystem::path(state) / "hadal/chat_history";
  if (home != nullptr && *home == '/') return std::filesystem::path(home) / ".local/state/hadal/chat_history";
  return {};
}

std::optional<std::string> QuestionLines::add(const std::string& given) {
  std::string line = given;
  bool goes_on = false;
  if (!begun_ && line.starts_with(kQuotes)) {
    quoted_ = true;
    line.erase(0, kQuotes.size());
    if (line.empty()) {
      begun_ = true;
      return std::nullopt;
    }
  }
  if (quoted_) {
    goes_on = !line.ends_with(kQuotes);
    if (!goes_on) line.resize(line.size() - kQuotes.size());
  } else if (line.ends_with('\\')) {
    goes_on = true;
    line.pop_back();
  }
  const bool is_closing_line = quoted_ && !goes_on && line.empty();
  if (begun_ && !text_.empty() && !is_closing_line) text_ += '\n';
  text_ += line;
  begun_ = true;
  if (goes_on) return std::nullopt;
  std::string whole = std::move(text_);
  clear();
  return whole;
}

LineEditor::Line ChatPrompt::read_line(const std::string& prompt) {
  if (can_edit_lines()) return editor_.read(prompt);
  std::cout << prompt << std::flush;
  std::string line;
  if (!std::getline(std::cin, line)) return {LineBuffer::Outcome::kEnded, ""};
  return {LineBuffer::Outcome::kSubmitted, to_valid_utf8(line)};
}

std::optional<std::string> ChatPrompt::read() {
  QuestionLines lines;
  bool interrupted = false;
  for (;;) {
    const LineEditor::Line line = read_line(lines.has_begun() ? "... " : "> ");
    if (line.how == LineBuffer::Outcome::kEnded) return std::nullopt;
    if (line.how == LineBuffer::Outcome::kInterrupted) {
      if (interrupted && line.text.empty() && !lines.has_begun()) return std::nullopt;
      interrupted = line.text.empty() && !lines.has_begun();
      if (interrupted) std::puts("Ctrl-C again, or Ctrl-D, ends the program.");
      lines.clear();
      continue;
    }
    interrupted = false;
    auto whole = lines.add(line.text);
    if (!whole || whole->find_first_not_of(" \t\n") == std::string::npos) continue;
    const Status kept = history_.add(*whole);
    if (!kept && !warned_) std::fprintf(stderr, "%s\n", kept.error().message.c_str());
    warned_ = warned_ || !kept;
    return whole;
  }
}

}  // namespace hadal
