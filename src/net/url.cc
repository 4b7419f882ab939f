#include "net/url.h"

#include <sys/un.h>

#include <algorithm>
#include <charconv>

namespace hadal {
namespace {

constexpr std::string_view kUnix = "unix:";

Expected<HttpUrl> parse_unix(std::string_view rest, const std::string& text) {
  const size_t colon = std::min(rest.find(":/"), rest.size());
  HttpUrl url = {.scheme = HttpUrl::Scheme::kUnix,
                 .host = std::string(rest.substr(0, colon)),
                 .target = colon < rest.size() ? std::string(rest.substr(colon + 1)) : "/"};
  if (!url.host.starts_with('/')) {
    return make_error(ErrorCode::kInvalidArgument, "{}: must be unix:/SOCKET[:/PATH]", text);
  }
  if (constexpr size_t kMost = sizeof(sockaddr_un::sun_path) - 1; url.host.size() > kMost) {
    return make_error(ErrorCode::kInvalidArgument, "{}: a socket's path has at most {} bytes, this one {}", text, kMost,
                      url.host.size());
  }
  return url;
}

bool is_port(std::string_view text) {
  uint16_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value > 0;
}

}  // namespace

std::string HttpUrl::authority() const {
  if (scheme == Scheme::kUnix) return "localhost";
  return host.find(':') == std::string::npos ? host + ":" + port : "[" + host + "]:" + port;
}

Expected<HttpUrl> parse_url(const std::string& text) {
  const auto wrong = [&] {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: must be http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH] or unix:/SOCKET[:/PATH]",
                      text);
  };
  if (std::any_of(text.begin(), text.end(), [](char c) { return (c >= 0 && c <= ' ') || c == 0x7F; })) return wrong();
  if (text.starts_with(kUnix)) return parse_unix(std::string_view(text).substr(kUnix.size()), text);
  const bool is_tls = text.starts_with("https://");
  if (!is_tls && !text.starts_with("http://")) return wrong();
  const std::string rest = text.substr(is_tls ? 8 : 7);
  const size_t path = std::min(rest.find_first_of("/?"), rest.size());
  const size_t bracket = rest.rfind(']', path);  // [::1]:8000
  const size_t colon = std::min(rest.find(':', bracket == std::string::npos ? 0 : bracket), path);
  HttpUrl url = {.scheme = is_tls ? HttpUrl::Scheme::kHttps : HttpUrl::Scheme::kHttp,
                 .host = rest.substr(0, colon),
                 .port = colon < path ? rest.substr(colon + 1, path - colon - 1)
                         : is_tls     ? "443"
                                      : "80",
                 .target = rest.substr(path)};
  if (!url.target.starts_with('/')) url.target.insert(0, "/");
  if (url.host.size() > 2 && url.host.front() == '[' && url.host.back() == ']') {
    url.host = url.host.substr(1, url.host.size() - 2);
  }
  if (url.host.empty() || url.host.find_first_of("@[]") != std::string::npos || !is_port(url.port)) return wrong();
  return url;
}

std::string url_below(std::string_view base, std::string_view path) {
  std::string url(base);
  while (url.size() > 1 && url.ends_with('/')) url.pop_back();
  const bool is_bare_socket = url.starts_with(kUnix) && url.find(":/", kUnix.size()) == std::string::npos;
  return url + (is_bare_socket ? ":" : "") + std::string(path);
}

}  // namespace hadal
