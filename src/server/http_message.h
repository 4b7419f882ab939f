// One HTTP request and answer as plain data. No sockets, no third-party types.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hadal {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;                             // "GET", as sent
  std::string path;                               // percent-decoded, without the query; begins with '/' or is "*"
  std::string query;                              // after '?', as sent
  HttpHeaders headers;                            // in order, names as sent
  std::string body;                               // chunks joined
  std::string client;                             // "127.0.0.1:34567"; "unix"
  std::chrono::steady_clock::time_point arrival;  // when the last byte was read

  // First header of that name (any case), or "".
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";  // not sent with an empty body
  HttpHeaders headers;                            // besides Content-Type, Content-Length, Connection, Date
};

struct HttpLimits {
  size_t max_header_bytes = size_t{64} << 10;
  size_t max_headers = 256;
  size_t max_body_bytes = size_t{64} << 20;
  size_t max_total_body_bytes = size_t{1} << 30;  // of all requests being read or answered
  size_t max_unsent_bytes = size_t{64} << 20;     // of one connection; a slower reader is cut off
  size_t max_connections = 4096;
  std::chrono::milliseconds idle_timeout{75'000};    // between requests
  std::chrono::milliseconds header_timeout{30'000};  // first byte to end of the header
  std::chrono::milliseconds body_timeout{120'000};   // end of the header to end of the body
  std::chrono::milliseconds write_timeout{60'000};   // without a byte of the answer being taken
};

// "Not Found"; "Unknown" for statuses this server does not send.
std::string_view http_reason(int status);

// ASCII only.
bool equals_ignoring_case(std::string_view a, std::string_view b);

}  // namespace hadal
