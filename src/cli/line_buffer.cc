#include "cli/line_buffer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "base/utf8.h"

namespace hadal {
namespace {

constexpr int kTabColumns = 8;
constexpr uint64_t kMaxHistoryBytes = uint64_t{4} << 20;

std::string escaped(std::string_view line) {
  std::string out;
  for (const char c : line) {
    if (c == '\\')
      out += "\\\\";
    else if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

std::string unescaped(std::string_view line) {
  std::string out;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\\' && i + 1 < line.size()) {
      ++i;
      out += line[i] == 'n' ? '\n' : line[i];
    } else {
      out += line[i];
    }
  }
  return out;
}

// No control characters but the line break: the file may be anybody's work.
bool is_plain(std::string_view line) {
  const auto is_control = [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7F;
  };
  return find_invalid_utf8(line) == std::string_view::npos && std::none_of(line.begin(), line.end(), is_control);
}

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t'; }

}  // namespace

LineHistory::LineHistory(std::filesystem::path file) : file_(std::move(file)) {
  if (file_.empty()) return;
  const auto content = read_file(file_, kMaxHistoryBytes);
  if (!content) return;
  for (size_t begin = 0; begin < content->size();) {
    const size_t end = std::min(content->find('\n', begin), content->size());
    std::string line = unescaped(std::string_view(*content).substr(begin, end - begin));
    if (!line.empty() && is_plain(line)) lines_.push_back(std::move(line));
    begin = end + 1;
  }
  if (lines_.size() > kMaxLines) {
    lines_.erase(lines_.begin(), lines_.end() - kMaxLines);
    std::string kept;
    for (const std::string& line : lines_) kept += escaped(line) + "\n";
    (void)write_file_atomically(file_, kept);  // a longer file is no harm
    ::chmod(file_.c_str(), 0600);
  }
}

Status LineHistory::add(const std::string& line) {
  if (line.empty() || (!lines_.empty() && lines_.back() == line)) return {};
  lines_.push_back(line);
  if (file_.empty()) return {};
  std::error_code ignored;
  std::filesystem::create_directories(file_.parent_path(), ignored);
  const int fd = ::open(file_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  const std::string bytes = escaped(line) + "\n";
  const bool written = fd >= 0 && ::write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
  const int code = errno;
  if (fd >= 0) ::close(fd);
  if (written) return {};
  return make_error(ErrorCode::kIo, "{}: the history is not kept: {}", file_.string(), std::strerror(code));
}

size_t LineBuffer::before(size_t at) const {
  if (at == 0) return 0;
  do --at;
  while (at > 0 && (static_cast<unsigned char>(text_[at]) & 0xC0) == 0x80);
  return at;
}

size_t LineBuffer::after(size_t at) const {
  if (at >= text_.size()) return text_.size();
  do ++at;
  while (at < text_.size() && (static_cast<unsigned char>(text_[at]) & 0xC0) == 0x80);
  return at;
}

size_t LineBuffer::word_left() const {
  size_t at = cursor_;
  while (at > 0 && is_space(text_[at - 1])) --at;
  while (at > 0 && !is_space(text_[at - 1])) --at;
  return at;
}

size_t LineBuffer::word_right() const {
  size_t at = cursor_;
  while (at < text_.size() && is_space(text_[at])) ++at;
  while (at < text_.size() && !is_space(text_[at])) ++at;
  return at;
}

void LineBuffer::erase(size_t begin, size_t end) {
  text_.erase(begin, end - begin);
  cursor_ = begin;
}

void LineBuffer::move_in_history(int step) {
  if ((step < 0 && at_ == 0) || (step > 0 && at_ == history_.size())) return;
  if (at_ == history_.size()) draft_ = text_;
  at_ = step < 0 ? at_ - 1 : at_ + 1;
  text_ = at_ == history_.size() ? draft_ : history_[at_];
  cursor_ = text_.size();
}

LineBuffer::Outcome LineBuffer::apply(const KeyPress& press) {
  switch (press.key) {
    case Key::kText:
      text_.insert(cursor_, press.text);
      cursor_ += press.text.size();
      break;
    case Key::kNewLine:
      text_.insert(cursor_, "\n");
      ++cursor_;
      break;
    case Key::kEnter:
      return Outcome::kSubmitted;
    case Key::kInterrupt:
      return Outcome::kInterrupted;
    case Key::kEndOfFile:
      if (text_.empty()) return Outcome::kEnded;
      erase(cursor_, after(cursor_));
      break;
    case Key::kBackspace:
      erase(before(cursor_), cursor_);
      break;
    case Key::kDelete:
      erase(cursor_, after(cursor_));
      break;
    case Key::kLeft:
      cursor_ = before(cursor_);
      break;
    case Key::kRight:
      cursor_ = after(cursor_);
      break;
    case Key::kHome:
      cursor_ = 0;
      break;
    case Key::kEnd:
      cursor_ = text_.size();
      break;
    case Key::kWordLeft:
      cursor_ = word_left();
      break;
    case Key::kWordRight:
      cursor_ = word_right();
      break;
    case Key::kEraseWord:
      erase(word_left(), cursor_);
      break;
    case Key::kEraseToStart:
      erase(0, cursor_);
      break;
    case Key::kEraseToEnd:
      erase(cursor_, text_.size());
      break;
    case Key::kUp:
      move_in_history(-1);
      break;
    case Key::kDown:
      move_in_history(1);
      break;
    case Key::kClearScreen:
      break;
  }
  return Outcome::kGoesOn;
}

int character_width(char32_t c) {
  struct Range {
    char32_t first, last;
  };
  static constexpr Range kNone[] = {{0x0300, 0x036F}, {0x200B, 0x200F}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}};
  static constexpr Range kWide[] = {{0x1100, 0x115F},   {0x2E80, 0x303E},   {0x3041, 0xA4CF},   {0xAC00, 0xD7A3},
                                    {0xF900, 0xFAFF},   {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},
                                    {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF}, {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD}};
  const auto is_in = [c](const Range& range) { return c >= range.first && c <= range.last; };
  if (std::any_of(std::begin(kNone), std::end(kNone), is_in)) return 0;
  return std::any_of(std::begin(kWide), std::end(kWide), is_in) ? 2 : 1;
}

ScreenPosition position_after(std::string_view text, ScreenPosition at, int num_columns) {
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    text.remove_prefix(std::max<size_t>(1, step.num_bytes));
    if (step.kind == Utf8Step::kValid && step.code_point == '\n') {
      at = {at.row + 1, 0};
      continue;
    }
    if (step.kind == Utf8Step::kValid && step.code_point == '\t') {
      at.column = std::max(at.column, std::min((at.column / kTabColumns + 1) * kTabColumns, num_columns - 1));
      continue;
    }
    const int width = step.kind == Utf8Step::kValid ? character_width(step.code_point) : 1;
    if (at.column + width > num_columns) at = {at.row + 1, 0};
    at.column += width;
  }
  return at;
}

}  // namespace hadal
