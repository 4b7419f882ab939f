#include "server/required_calls.h"

#include <algorithm>

#include "base/json.h"

namespace hadal {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";
constexpr size_t kMaxHeadBytes = 1024;

struct Head {
  enum { kIncomplete, kBroken, kWhole } kind = kIncomplete;
  size_t num_bytes = 0;
  std::string name;
};

// Bytes of a JSON string with its quotes; npos when it does not end.
size_t string_bytes(std::string_view text) {
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '"') return i + 1;
    if (text[i] == '\\') ++i;
  }
  return std::string_view::npos;
}

// { "name" : "..." , "parameters" : and the value's first byte, which is not counted
Head read_head(std::string_view text) {
  static constexpr std::string_view kParts[] = {"{", "\"name\"", ":", "", ",", "\"parameters\"", ":"};
  Head head;
  size_t pos = 0;
  const auto skip_blanks = [&] { pos = std::min(text.find_first_not_of(kBlanks, pos), text.size()); };
  for (const std::string_view part : kParts) {
    skip_blanks();
    const std::string_view rest = text.substr(pos);
    if (!part.empty()) {
      if (part.starts_with(rest) && rest.size() < part.size()) return head;
      if (!rest.starts_with(part)) return {.kind = Head::kBroken};
      pos += part.size();
      continue;
    }
    if (rest.empty()) return head;
    if (rest.front() != '"') return {.kind = Head::kBroken};
    const size_t size = string_bytes(rest);
    if (size == std::string_view::npos) return head;
    const Json name = Json::parse(rest.substr(0, size), nullptr, false);
    if (!name.is_string() || name.get_ref<const std::string&>().empty()) return {.kind = Head::kBroken};
    head.name = name.get<std::string>();
    pos += size;
  }
  skip_blanks();
  if (pos == text.size()) return head;
  const bool is_nested = text[pos] == '{' || text[pos] == '[';
  head.kind = is_nested ? Head::kWhole : Head::kBroken;
  head.num_bytes = pos;
  return head;
}

}  // namespace

std::vector<ToolEvent> RequiredCallReader::push(std::string_view text) {
  held_ += text;
  while (!held_.empty() && step()) continue;
  return std::exchange(events_, {});
}

std::vector<ToolEvent> RequiredCallReader::flush() {
  if (state_ == State::kValue) add(ToolEvent::Kind::kCallBroken, std::exchange(raw_, {}));
  if (state_ == State::kListBegin || state_ == State::kHead) give_up();
  add(ToolEvent::Kind::kText, std::exchange(held_, {}));
  return std::exchange(events_, {});
}

bool RequiredCallReader::step() {
  switch (state_) {
    case State::kListBegin:
      return step_punctuation("[");
    case State::kHead:
      return step_head();
    case State::kValue:
      return step_value();
    case State::kEntryEnd:
      return step_punctuation("}");
    case State::kNextEntry:
      return step_punctuation(",]");
    case State::kEnd:
      held_.erase(0, held_.find_first_not_of(kBlanks));
      if (!held_.empty()) give_up();
      return !held_.empty();
    case State::kText:
      add(ToolEvent::Kind::kText, std::exchange(held_, {}));
      return false;
  }
  return false;
}

bool RequiredCallReader::step_punctuation(std::string_view expected) {
  const size_t at = held_.find_first_not_of(kBlanks);
  if (at == std::string::npos) {
    raw_ += std::exchange(held_, {});
    return false;
  }
  const char found = held_[at];
  if (expected.find(found) == std::string_view::npos) {
    give_up();
    return true;
  }
  raw_ += take(at + 1);
  if (found == '}') {
    state_ = State::kNextEntry;
  } else if (found == ']') {
    state_ = State::kEnd;
  } else {
    state_ = State::kHead;
    if (found == ',') raw_.clear();
  }
  return true;
}

bool RequiredCallReader::step_head() {
  const Head head = read_head(std::string_view(held_).substr(0, kMaxHeadBytes));
  if (head.kind == Head::kIncomplete && held_.size() < kMaxHeadBytes) return false;
  if (head.kind != Head::kWhole) {
    give_up();
    return true;
  }
  raw_ += take(head.num_bytes);
  events_.push_back({ToolEvent::Kind::kCallBegin, {}, head.name, {}});
  arguments_.clear();
  depth_ = 0;
  in_string_ = escaped_ = false;
  state_ = State::kValue;
  return true;
}

bool RequiredCallReader::step_value() {
  size_t size = 0;
  bool ended = false;
  while (size < held_.size() && !ended) {
    const char byte = held_[size++];
    if (in_string_) {
      if (!escaped_ && byte == '"') in_string_ = false;
      escaped_ = !escaped_ && byte == '\\';
    } else if (byte == '"') {
      in_string_ = true;
    } else if (byte == '{' || byte == '[') {
      ++depth_;
    } else if (byte == '}' || byte == ']') {
      ended = --depth_ == 0;
    }
  }
  std::string piece = take(size);
  raw_ += piece;
  arguments_ += piece;
  add(ToolEvent::Kind::kArguments, std::move(piece));
  if (!ended) return false;
  const bool is_whole = Json::accept(arguments_);
  events_.push_back({is_whole ? ToolEvent::Kind::kCallEnd : ToolEvent::Kind::kCallBroken,
                     is_whole ? "" : std::exchange(raw_, {}),
                     {},
                     {}});
  raw_.clear();
  state_ = State::kEntryEnd;
  return true;
}

// From here on it is text, with what was read and not told.
void RequiredCallReader::give_up() {
  add(ToolEvent::Kind::kText, std::exchange(raw_, {}));
  state_ = State::kText;
}

std::string RequiredCallReader::take(size_t num_bytes) {
  std::string taken = held_.substr(0, num_bytes);
  held_.erase(0, num_bytes);
  return taken;
}

void RequiredCallReader::add(ToolEvent::Kind kind, std::string text) {
  if (text.empty()) return;
  if (!events_.empty() && events_.back().kind == kind) {
    events_.back().text += text;
  } else {
    events_.push_back({kind, std::move(text), {}, {}});
  }
}

}  // namespace hadal
