#include "text/tool_parser.h"

#include <algorithm>

#include "base/json.h"
#include "text/marker_search.h"

namespace hadal {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";
constexpr size_t kMaxHeaderBytes = 1024;  // longer ones are no headers

std::string_view strip(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

bool is_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

ToolParser::ToolParser(const ToolFormat& format, std::vector<std::string> tool_names)
    : format_(format),
      tool_names_(std::move(tool_names)),
      opening_{format.section_begin, format.call_begin},
      closing_{format.call_end, format.call_begin, format.section_end, format.section_begin} {
  for (const ToolFormat& other : tool_formats()) {
    if (other.call_begin != format.call_begin) continue;
    (other.args_end.empty() ? plain_ : fenced_) = &other;
  }
}

std::vector<ToolEvent> ToolParser::push(std::string_view text) {
  std::vector<ToolEvent> events;
  events_ = &events;
  held_ += text;
  while (!held_.empty() && step(false)) continue;
  return events;
}

std::vector<ToolEvent> ToolParser::flush() {
  std::vector<ToolEvent> events;
  events_ = &events;
  while (step(true)) continue;
  return events;
}

bool ToolParser::step(bool at_end) {
  switch (state_) {
    case State::kText:
    case State::kAfterCalls:
      return step_text(at_end);
    case State::kSection:
      return step_section(at_end);
    case State::kHeader:
      return step_header(at_end);
    case State::kArguments:
      return step_arguments(at_end);
    case State::kBrokenCall:
      return step_broken_call(at_end);
  }
  return false;
}

bool ToolParser::step_text(bool at_end) {
  const std::span<const std::string_view> markers(opening_);
  const MarkerMatch match = find_marker(held_, markers);
  const size_t keep = match.found() || at_end ? 0 : partial_marker_bytes(held_, markers);
  std::string text = take(match.found() ? match.begin : held_.size() - keep);
  if (state_ == State::kText) add(ToolEvent::Kind::kText, std::move(text));
  if (!match.found()) return false;
  raw_ = match.which == 0 ? take(format_.section_begin.size()) : "";
  section_has_call_ = false;
  state_ = State::kSection;
  return true;
}

bool ToolParser::step_section(bool at_end) {
  raw_ += take(std::min(held_.find_first_not_of(kBlanks), held_.size()));
  const std::string_view next = held_;
  if (next.starts_with(format_.call_begin)) {
    raw_ += take(format_.call_begin.size());
    state_ = State::kHeader;
    return true;
  }
  if (next.starts_with(format_.section_end)) {
    raw_ += take(format_.section_end.size());
    leave_section();
    return true;
  }
  const bool may_become_marker = format_.call_begin.starts_with(next) || format_.section_end.starts_with(next);
  if (may_become_marker && !at_end) return false;
  leave_section();  // something else; another section's begin is found there
  return true;
}

void ToolParser::leave_section() {
  if (!section_has_call_) add(ToolEvent::Kind::kText, std::move(raw_));
  raw_.clear();
  state_ = has_call_ ? State::kAfterCalls : State::kText;
}

bool ToolParser::step_header(bool at_end) {
  Header header = read_header(at_end);
  if (header.kind == Header::kIncomplete) return false;
  if (header.kind == Header::kBroken) {
    add(ToolEvent::Kind::kText, std::exchange(raw_, {}));
    state_ = State::kBrokenCall;
    return true;
  }
  raw_ += take(header.num_bytes);
  events_->push_back({ToolEvent::Kind::kCallBegin, {}, std::move(header.name), std::move(header.id)});
  filter_ = ArgumentFilter(header.is_fenced);
  arguments_.clear();
  state_ = State::kArguments;
  return true;
}

// The decision depends on the shortest beginning of the text that allows it, so on no cut.
ToolParser::Header ToolParser::read_header(bool at_end) const {
  const MarkerMatch end = find_marker(held_, std::span<const std::string_view>(closing_));
  const size_t size = std::min({held_.size(), end.begin, kMaxHeaderBytes});
  const bool is_final = at_end || end.found() || size == kMaxHeaderBytes;
  const std::string_view text = std::string_view(held_).substr(0, size);
  return format_.numbered_names ? read_numbered_header(text, is_final) : read_deepseek_header(text, is_final);
}

// "function<sep>NAME\n```json\n" or "NAME<sep>", under either format.
ToolParser::Header ToolParser::read_deepseek_header(std::string_view text, bool is_final) const {
  const Header undecided{.kind = is_final ? Header::kBroken : Header::kIncomplete};
  const std::string_view separator = plain_->args_begin;
  const size_t at = text.find(separator);
  if (at == std::string_view::npos) return undecided;
  const std::string_view first = strip(text.substr(0, at));
  size_t pos = at + separator.size();
  if (&format_ == fenced_ || first == "function") {
    const size_t body = text.find_first_not_of(kBlanks, pos);
    if (body == std::string_view::npos) return undecided;
    if (text[body] != '{') {
      const std::string_view fence = fenced_->args_begin;  // begins with the line break that ends the name
      const size_t line_end = text.find('\n', body);
      if (line_end == std::string_view::npos) return undecided;
      const std::string_view rest = text.substr(line_end);
      if (fence.starts_with(rest) && rest.size() < fence.size()) return undecided;
      if (!rest.starts_with(fence)) return {.kind = Header::kBroken};
      return {
          Header::kWhole, line_end + fence.size(), true, std::string(strip(text.substr(body, line_end - body))), {}};
    }
  }
  if (first.empty()) return {.kind = Header::kBroken};
  return {Header::kWhole, pos, false, std::string(first), {}};
}

ToolParser::Header ToolParser::read_numbered_header(std::string_view text, bool is_final) const {
  const size_t at = text.find(format_.args_begin);
  if (at == std::string_view::npos) return {.kind = is_final ? Header::kBroken : Header::kIncomplete};
  const std::string_view id = strip(text.substr(0, at));
  std::string name = name_in_id(id);
  if (name.empty()) return {.kind = Header::kBroken};
  return {Header::kWhole, at + format_.args_begin.size(), false, std::move(name), std::string(id)};
}

// "functions.NAME:3". Names may hold dots: if the rest is no declared tool, its last part may be one.
std::string ToolParser::name_in_id(std::string_view id) const {
  if (id.starts_with(format_.name_prefix)) id.remove_prefix(format_.name_prefix.size());
  const size_t colon = id.rfind(':');
  if (colon != std::string_view::npos && is_digits(id.substr(colon + 1))) id = id.substr(0, colon);
  const auto is_declared = [&](std::string_view name) {
    return std::find(tool_names_.begin(), tool_names_.end(), name) != tool_names_.end();
  };
  const size_t dot = id.rfind('.');
  if (dot != std::string_view::npos && !is_declared(id) && is_declared(id.substr(dot + 1))) id = id.substr(dot + 1);
  return std::string(id);
}

bool ToolParser::step_arguments(bool at_end) {
  const std::span<const std::string_view> markers(closing_);
  const MarkerMatch end = find_marker(held_, markers);
  const size_t keep = end.found() || at_end ? 0 : partial_marker_bytes(held_, markers);
  const std::string text = take(end.found() ? end.begin : held_.size() - keep);
  raw_ += text;
  add_arguments(filter_.push(text));
  if (!end.found() && !at_end) return false;
  const bool has_end_marker = end.found() && end.which == 0;
  if (has_end_marker) raw_ += take(format_.call_end.size());
  end_call(has_end_marker);
  state_ = State::kSection;
  return true;
}

void ToolParser::add_arguments(std::string text) {
  arguments_ += text;
  add(ToolEvent::Kind::kArguments, std::move(text));
}

void ToolParser::end_call(bool has_end_marker) {
  add_arguments(filter_.finish());
  if (arguments_.empty() && has_end_marker) add_arguments("{}");
  // Without its end a number or word may be cut; an object that is closed is not.
  const bool may_be_whole = has_end_marker || arguments_.starts_with('{');
  const bool is_whole = may_be_whole && Json::accept(arguments_);
  events_->push_back(
      {is_whole ? ToolEvent::Kind::kCallEnd : ToolEvent::Kind::kCallBroken, is_whole ? "" : raw_, {}, {}});
  section_has_call_ = section_has_call_ || is_whole;
  has_call_ = has_call_ || is_whole;
  raw_.clear();
}

bool ToolParser::step_broken_call(bool at_end) {
  const std::span<const std::string_view> markers(closing_);
  const MarkerMatch end = find_marker(held_, markers);
  const size_t keep = end.found() || at_end ? 0 : partial_marker_bytes(held_, markers);
  size_t size = end.found() ? end.begin : held_.size() - keep;
  if (end.found() && end.which == 0) size += format_.call_end.size();
  add(ToolEvent::Kind::kText, take(size));
  if (!end.found()) return false;
  state_ = State::kSection;
  return true;
}

std::string ToolParser::take(size_t num_bytes) {
  std::string taken = held_.substr(0, num_bytes);
  held_.erase(0, num_bytes);
  return taken;
}

void ToolParser::add(ToolEvent::Kind kind, std::string text) {
  if (text.empty()) return;
  if (!events_->empty() && events_->back().kind == kind) {
    events_->back().text += text;
  } else {
    events_->push_back({kind, std::move(text), {}, {}});
  }
}

}  // namespace hadal
