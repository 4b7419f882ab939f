// Where a server is: http://HOST[:PORT][/PATH], https://..., or a unix socket as unix:/SOCKET[:/PATH].
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace hadal {

struct HttpUrl {
  enum class Scheme { kHttp, kHttps, kUnix };

  Scheme scheme = Scheme::kHttp;
  std::string host;    // name or address, IPv6 without brackets; kUnix: the path of the socket
  std::string port;    // a decimal number; "80" or "443" where the text has none; kUnix: empty
  std::string target;  // path with its query, at least "/"

  // For the Host header: "example.org:80", "[::1]:8000"; "localhost" for a unix socket.
  std::string authority() const;
};

// Errors: kInvalidArgument naming the text.
Expected<HttpUrl> parse_url(const std::string& text);

// The URL of a route below `base`: ("http://h:1/", "/v1/models") gives "http://h:1/v1/models",
// ("unix:/run/h.sock", "/v1/models") gives "unix:/run/h.sock:/v1/models". `path` begins with '/'.
std::string url_below(std::string_view base, std::string_view path);

}  // namespace hadal
