#include "net/sse.h"

#include <algorithm>
#include <utility>

namespace hadal {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

Status SseParser::push(std::string_view bytes) {
  while (!bytes.empty()) {
    if (skip_line_feed_ && bytes.front() == '\n') bytes.remove_prefix(1);
    skip_line_feed_ = false;
    const size_t end = bytes.find_first_of("\r\n");
    const size_t size = std::min(end, bytes.size());
    if (size > max_event_bytes_ - line_.size()) {
      return make_error(ErrorCode::kResourceExhausted, "a line of an event stream has more than {} bytes",
                        max_event_bytes_);
    }
    line_.append(bytes.substr(0, size));
    if (end == std::string_view::npos) return {};
    skip_line_feed_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    HADAL_RETURN_IF_ERROR(take_line(line_));
    line_.clear();
  }
  return {};
}

Status SseParser::take_line(std::string_view line) {
  if (std::exchange(at_start_, false) && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
  if (line.empty()) {
    if (std::exchange(has_data_, false)) ready_.push_back(std::move(event_));
    event_ = {};
    return {};
  }
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, colon);
  std::string_view value = colon == line.npos ? "" : line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (name == "event") {
    event_.type = value;
  } else if (name == "data") {
    if (value.size() >= max_event_bytes_ - event_.data.size()) {
      return make_error(ErrorCode::kResourceExhausted, "an event has more than {} bytes", max_event_bytes_);
    }
    if (std::exchange(has_data_, true)) event_.data += '\n';
    event_.data += value;
  }
  return {};
}

std::optional<SseEvent> SseParser::next() {
  if (ready_.empty()) return std::nullopt;
  SseEvent event = std::move(ready_.front());
  ready_.pop_front();
  return event;
}

}  // namespace hadal
