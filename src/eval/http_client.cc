#include "eval/http_client.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

// A non-blocking socket; every wait on it ends at the deadline.
class Connection {
 public:
  Connection(int fd, Clock::time_point deadline) : fd_(fd), deadline_(deadline) {}
  ~Connection() { ::close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool connect(const addrinfo& address) {
    if (::connect(fd_, address.ai_addr, address.ai_addrlen) == 0) return true;
    if (errno != EINPROGRESS || !wait_for(POLLOUT)) return false;
    int error = 0;
    socklen_t length = sizeof(error);
    return ::getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0;
  }

  bool send_all(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        bytes.remove_prefix(static_cast<size_t>(sent));
      } else if (!retry(POLLOUT)) {
        return false;
      }
    }
    return true;
  }

  // Bytes received, 0 at the end of the stream, -1 when time is up or the connection broke.
  ssize_t receive(char* buffer, size_t size) {
    for (;;) {
      const ssize_t received = ::recv(fd_, buffer, size, 0);
      if (received >= 0 || !retry(POLLIN)) return received;
    }
  }

 private:
  bool retry(short events) { return errno == EINTR || ((errno == EAGAIN || errno == EWOULDBLOCK) && wait_for(events)); }

  bool wait_for(short events) {
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
      if (left <= 0) return false;
      pollfd entry = {.fd = fd_, .events = events, .revents = 0};
      const int ready = ::poll(&entry, 1, static_cast<int>(std::min<int64_t>(left, 60'000)));
      if (ready > 0) return true;
      if (ready < 0 && errno != EINTR) return false;
    }
  }

  const int fd_;
  const Clock::time_point deadline_;
};

// Connected to the first address that answers, or null.
std::unique_ptr<Connection> connect_to(const HttpUrl& url, Clock::time_point deadline) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(url.host.c_str(), url.port.c_str(), &hints, &found) != 0) return nullptr;
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, ::freeaddrinfo);
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const int fd = ::socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) continue;
    auto connection = std::make_unique<Connection>(fd, deadline);
    if (connection->connect(*address)) return connection;
  }
  return nullptr;
}

std::string request_text(const HttpCall& call, const HttpUrl& url) {
  std::string text = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: */*\r\n", call.method,
                                 url.path, url.authority());
  if (!call.api_key.empty()) text += fmt::format("Authorization: Bearer {}\r\n", call.api_key);
  if (!call.body.empty()) {
    text += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", call.body.size());
  }
  return text + "\r\n" + call.body;
}

Expected<HttpReply> exchange(Connection& connection, std::string_view request, const HttpCallLimits& limits) {
  const auto late = [&] { return make_error(ErrorCode::kUnavailable, "no answer in {} ms", limits.timeout.count()); };
  if (!connection.send_all(request)) return late();
  HttpReplyParser parser(limits.max_bytes);
  char buffer[16384];
  while (!parser.done()) {
    const ssize_t received = connection.receive(buffer, sizeof(buffer));
    if (received < 0) return late();
    HADAL_RETURN_IF_ERROR(received == 0 ? parser.end() : parser.push({buffer, static_cast<size_t>(received)}));
  }
  return parser.take();
}

}  // namespace

std::string HttpUrl::authority() const {
  return host.find(':') == std::string::npos ? host + ":" + port : "[" + host + "]:" + port;
}

Expected<HttpUrl> parse_url(const std::string& text) {
  constexpr std::string_view kScheme = "http://";
  if (text.starts_with("https://")) {
    return make_error(ErrorCode::kUnsupported,
                      "{}: this client speaks http:// only, no TLS; reach the server through "
                      "a local proxy or its plain port",
                      text);
  }
  const std::string rest = text.starts_with(kScheme) ? text.substr(kScheme.size()) : "";
  const size_t path = std::min(rest.find('/'), rest.size());
  const size_t bracket = rest.find(']');  // [::1]:8000
  const size_t colon = std::min(rest.find(':', bracket == std::string::npos ? 0 : bracket), path);
  HttpUrl url = {rest.substr(0, colon), colon < path ? rest.substr(colon + 1, path - colon - 1) : "80",
                 rest.substr(path)};
  if (url.path.empty()) url.path = "/";
  if (url.host.size() > 2 && url.host.front() == '[') url.host = url.host.substr(1, url.host.size() - 2);
  const bool has_control = std::any_of(text.begin(), text.end(), [](char c) { return c >= 0 && c <= ' '; });
  if (url.host.empty() || url.port.empty() || has_control) {
    return make_error(ErrorCode::kInvalidArgument, "{}: must be http://HOST[:PORT][/PATH]", text);
  }
  return url;
}

Expected<HttpReply> http_call(const HttpCall& call, const HttpCallLimits& limits) {
  HADAL_ASSIGN_OR_RETURN(const HttpUrl url, parse_url(call.url));
  if (call.api_key.find_first_of("\r\n") != std::string::npos) {
    return make_error(ErrorCode::kInvalidArgument, "the API key has a line break in it");
  }
  const auto connection = connect_to(url, Clock::now() + limits.timeout);
  if (connection == nullptr) return make_error(ErrorCode::kUnavailable, "{}: nobody listens there", call.url);
  auto reply = exchange(*connection, request_text(call, url), limits);
  if (!reply) return forward_error(std::move(reply), call.url);
  return reply;
}

Expected<std::string> http_get(const std::string& url, const HttpCallLimits& limits) {
  HADAL_ASSIGN_OR_RETURN(HttpReply reply, http_call({.url = url}, limits));
  if (reply.status != 200) return make_error(ErrorCode::kNotFound, "{}: {} {}", url, reply.status, reply.reason);
  return std::move(reply.body);
}

}  // namespace hadal
