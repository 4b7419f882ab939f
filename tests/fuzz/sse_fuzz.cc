// Event streams from any server: the events must not depend on how the bytes are cut, and no event exceeds its limit.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "net/sse.h"

namespace {

constexpr size_t kMaxEvent = 256;

// All events and whether the stream was taken to its end.
std::pair<std::string, bool> parse(std::string_view bytes, size_t step) {
  hadal::SseParser parser(kMaxEvent);
  std::string out;
  bool good = true;
  for (size_t at = 0; at < bytes.size() && good; at += step) {
    good = parser.push(bytes.substr(at, step)).has_value();
    while (const auto event = parser.next()) {
      if (event->data.size() > kMaxEvent || event->type.size() > kMaxEvent) std::abort();
      if (std::min(event->data.find('\r'), event->type.find_first_of("\r\n")) != std::string::npos) std::abort();
      out += event->type + '\0' + event->data + '\0';
    }
  }
  return {out, good};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto whole = parse(bytes, size + 1);
  for (const size_t step : {1, 3, 7}) {
    if (parse(bytes, step) != whole) std::abort();
  }
  return 0;
}
