// Reads server-sent events out of the bytes of a stream, however they are cut. Definition: WHATWG HTML, "Parsing an
// event stream". No sockets here.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hadal {

struct SseEvent {
  std::string type;  // the `event` field; empty: "message"
  std::string data;  // `data` lines joined by '\n'
};

// Single-owner. Comments, `id` and `retry` are read and dropped; so is an event without data, and the last one when the
// stream ends before its empty line.
class SseParser {
 public:
  explicit SseParser(size_t max_event_bytes = size_t{4} << 20) : max_event_bytes_(max_event_bytes) {}

  // Takes the next bytes. Error: kResourceExhausted when a line or an event's data is over the limit; take nothing more
  // then.
  Status push(std::string_view bytes);
  // The next whole event, oldest first.
  std::optional<SseEvent> next();

 private:
  Status take_line(std::string_view line);

  const size_t max_event_bytes_;
  std::string line_;             // begun, its end has not come
  bool skip_line_feed_ = false;  // the last line ended with CR: a LF now belongs to it
  bool at_start_ = true;         // a byte-order mark may come
  SseEvent event_;
  bool has_data_ = false;
  std::deque<SseEvent> ready_;
};

}  // namespace hadal
