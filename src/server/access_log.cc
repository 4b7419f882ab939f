#include "server/access_log.h"

#include <fmt/format.h>

#include <algorithm>

namespace hadal {
namespace {

constexpr size_t kMaxPathBytes = 200;

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, kMaxPathBytes)) {
    if (c > ' ' && c < 0x7F && c != '"') {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace

std::string access_line(const HttpAccess& access) {
  const HttpRequest& request = access.request;
  return fmt::format("{} - \"{} {} HTTP/1.1\" {} {} {:.1f} ms id={}", request.client, printable(request.method),
                     printable(request.path), access.status, http_reason(access.status), 1e3 * access.duration_s,
                     access.request_id);
}

std::vector<LogField> access_fields(const HttpAccess& access) {
  const HttpRequest& request = access.request;
  return {{"client", request.client},
          {"method", printable(request.method)},
          {"path", printable(request.path)},
          {"status", int64_t{access.status}},
          {"duration_ms", 1e3 * access.duration_s},
          {"request_bytes", static_cast<int64_t>(request.body.size())},
          {"response_bytes", static_cast<int64_t>(access.num_response_bytes)},
          {"cut_short", access.cut_short},
          {"request_id", std::string(access.request_id)}};
}

}  // namespace hadal
