#include "server/http_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace hadal {
namespace {

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[parts.tm_wday], parts.tm_mday,
                     kMonths[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

void add_header(std::string& out, std::string_view name, std::string value) {
  // A line break in a value would let it write headers of its own.
  std::replace_if(
      value.begin(), value.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, ' ');
  out += fmt::format("{}: {}\r\n", name, value);
}

}  // namespace

std::string format_head(const HttpResponse& response, const HttpHead& head) {
  std::string out =
      fmt::format("HTTP/1.{} {} {}\r\n", head.http_1_1 ? 1 : 0, response.status, http_reason(response.status));
  add_header(out, "Date", http_date());
  const bool has_body = head.framing != HttpFraming::kLength || head.content_length > 0;
  if (has_body && !response.content_type.empty()) add_header(out, "Content-Type", response.content_type);
  if (head.framing == HttpFraming::kLength) {
    add_header(out, "Content-Length", std::to_string(head.content_length));
  } else if (head.framing == HttpFraming::kChunked) {
    add_header(out, "Transfer-Encoding", "chunked");
  }
  if (!head.keep_alive) {
    add_header(out, "Connection", "close");
  } else if (!head.http_1_1) {
    add_header(out, "Connection", "keep-alive");
  }
  for (const auto& [name, value] : response.headers) add_header(out, name, value);
  return out + "\r\n";
}

std::string format_chunk(std::string_view bytes) { return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes); }

}  // namespace hadal
