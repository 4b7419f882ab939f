#include "cli/http_get.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <memory>
#include <string_view>

namespace hadal {
namespace {

struct Url {
  std::string host, port, path;
};

// A socket connected to the first address that answers, or -1. Every call on it returns within the timeout.
int connect_to(const Url& url, std::chrono::milliseconds timeout) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(url.host.c_str(), url.port.c_str(), &hints, &found) != 0) return -1;
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, ::freeaddrinfo);
  const timeval limit{timeout.count() / 1000, timeout.count() % 1000 * 1000};
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const int fd = ::socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));  // bounds connect() too
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (::connect(fd, address->ai_addr, address->ai_addrlen) == 0) return fd;
    ::close(fd);
  }
  return -1;
}

// Sends the request and reads until the peer closes, time is up or the answer is too long.
bool exchange(int fd, std::string_view request, std::chrono::milliseconds timeout, size_t max_bytes, std::string& out) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  if (::send(fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size())) return false;
  char buffer[16384];
  while (out.size() <= max_bytes && std::chrono::steady_clock::now() < deadline) {
    const ssize_t received = ::recv(fd, buffer, sizeof(buffer), 0);
    if (received <= 0) return received == 0;
    out.append(buffer, static_cast<size_t>(received));
  }
  return out.size() > max_bytes;
}

Expected<Url> parse_url(const std::string& text) {
  constexpr std::string_view kScheme = "http://";
  const std::string rest = text.rfind(kScheme, 0) == 0 ? text.substr(kScheme.size()) : "";
  const size_t path = std::min(rest.find('/'), rest.size());
  const size_t bracket = rest.find(']');  // [::1]:8000
  const size_t colon = std::min(rest.find(':', bracket == std::string::npos ? 0 : bracket), path);
  Url url = {rest.substr(0, colon), colon < path ? rest.substr(colon + 1, path - colon - 1) : "80", rest.substr(path)};
  if (url.path.empty()) url.path = "/";
  if (url.host.size() > 2 && url.host.front() == '[') url.host = url.host.substr(1, url.host.size() - 2);
  if (url.host.empty() || url.port.empty() || text.find_first_of(" \t\r\n") != std::string::npos) {
    return make_error(ErrorCode::kInvalidArgument, "{}: must be http://HOST[:PORT][/PATH]", text);
  }
  return url;
}

}  // namespace

Expected<std::string> http_get(const std::string& url_text, std::chrono::milliseconds timeout, size_t max_bytes) {
  HADAL_ASSIGN_OR_RETURN(const Url url, parse_url(url_text));
  // HTTP/1.0: the answer comes in one piece and ends when the server closes.
  const std::string request =
      fmt::format("GET {} HTTP/1.0\r\nHost: {}:{}\r\nConnection: close\r\n\r\n", url.path, url.host, url.port);
  std::string answer;
  const int fd = connect_to(url, timeout);
  if (fd < 0) return make_error(ErrorCode::kUnavailable, "{}: nobody listens there", url_text);
  const bool answered = exchange(fd, request, timeout, max_bytes, answer);
  ::close(fd);
  if (!answered) return make_error(ErrorCode::kUnavailable, "{}: no answer in {} ms", url_text, timeout.count());
  if (answer.size() > max_bytes) {
    return make_error(ErrorCode::kResourceExhausted, "{}: an answer of more than {} bytes", url_text, max_bytes);
  }
  const size_t head_end = answer.find("\r\n\r\n");
  if (head_end == std::string::npos || answer.rfind("HTTP/1.", 0) != 0) {
    return make_error(ErrorCode::kCorrupt, "{}: not an HTTP answer", url_text);
  }
  if (answer.compare(8, 5, " 200 ") != 0) {
    return make_error(ErrorCode::kNotFound, "{}: {}", url_text, answer.substr(0, answer.find("\r\n")));
  }
  return answer.substr(head_end + 4);
}

}  // namespace hadal
