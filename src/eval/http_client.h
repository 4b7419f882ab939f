// A small HTTP/1.1 client without TLS: one request, one connection, everything bounded.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "eval/http_reply.h"

namespace hadal {

struct HttpUrl {
  std::string host, port, path;  // path: with its query, at least "/"

  // "[::1]:8000" for IPv6 addresses.
  std::string authority() const;
};

// http://HOST[:PORT][/PATH]. Errors: kInvalidArgument, kUnsupported (https).
Expected<HttpUrl> parse_url(const std::string& text);

struct HttpCall {
  std::string method = "GET";
  std::string url;
  std::string body;     // JSON; sent when not empty
  std::string api_key;  // "Authorization: Bearer <key>" when not empty
};

struct HttpCallLimits {
  std::chrono::milliseconds timeout{10'000};  // of the whole call
  size_t max_bytes = size_t{16} << 20;        // of the answer's body
};

// Blocks until the answer is whole; any status is an answer. Thread-safe. Errors name the URL: as parse_url();
// kUnavailable (nobody listens, no answer in time); what HttpReplyParser says.
Expected<HttpReply> http_call(const HttpCall& call, const HttpCallLimits& limits);

// The body of a 200 answer to a GET. Errors: as http_call(); kNotFound for another status.
Expected<std::string> http_get(const std::string& url, const HttpCallLimits& limits = {});

}  // namespace hadal
