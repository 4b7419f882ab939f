#include "server/test_client.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <stdexcept>
#include <utility>

namespace hadal {

std::string HttpReply::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

Json HttpReply::json() const {
  auto parsed = parse_json(body);
  if (!parsed) throw std::runtime_error("not JSON: " + body);
  return *parsed;
}

std::vector<std::string> HttpReply::events() const {
  std::vector<std::string> out;
  size_t at = 0;
  while (at < body.size()) {
    const size_t end = std::min(body.find('\n', at), body.size());
    const std::string line = body.substr(at, end - at);
    if (line.starts_with("data: ")) {
      out.push_back(line.substr(6));
    } else if (!line.empty()) {
      out.push_back("BAD " + line);
    }
    at = end + 1;
  }
  return out;
}

TestClient::TestClient(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  open(reinterpret_cast<sockaddr*>(&address), sizeof address);
}

TestClient::TestClient(const std::string& unix_socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  unix_socket.copy(address.sun_path, sizeof address.sun_path - 1);
  open(reinterpret_cast<sockaddr*>(&address), sizeof address);
}

void TestClient::open(const sockaddr* address, size_t size) {
  fd_ = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval timeout{.tv_sec = 120, .tv_usec = 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  if (connect(fd_, address, static_cast<socklen_t>(size)) != 0) throw std::runtime_error("cannot connect");
}

TestClient::~TestClient() { close(); }

void TestClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void TestClient::half_close() { ::shutdown(fd_, SHUT_WR); }

void TestClient::set_receive_buffer(int num_bytes) {
  setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &num_bytes, sizeof num_bytes);
}

bool TestClient::try_send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

void TestClient::send(std::string_view bytes) {
  if (!try_send(bytes)) throw std::runtime_error("send failed");
}

bool TestClient::fill() {
  char chunk[16384];
  const ssize_t size = recv(fd_, chunk, sizeof chunk, 0);
  if (size <= 0) return false;
  buffer_.append(chunk, static_cast<size_t>(size));
  return true;
}

std::string TestClient::read_some() {
  if (buffer_.empty()) fill();
  return std::exchange(buffer_, "");
}

std::string TestClient::read_all() {
  while (fill()) {
  }
  return std::exchange(buffer_, "");
}

bool TestClient::wait_for(std::string_view bytes) {
  while (buffer_.find(bytes) == std::string::npos) {
    if (!fill()) return false;
  }
  return true;
}

bool TestClient::closed_by_peer() {
  if (!buffer_.empty()) return false;
  char byte;
  const ssize_t size = recv(fd_, &byte, 1, 0);
  return size == 0 || (size < 0 && errno != EAGAIN);
}

HttpReply TestClient::read_reply(bool head) {
  HttpReply reply;
  size_t end;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!fill()) return reply;
  }
  const std::string text = buffer_.substr(0, end + 2);
  buffer_.erase(0, end + 4);
  reply.status = std::stoi(text.substr(text.find(' ') + 1));
  for (size_t at = text.find("\r\n") + 2; at < text.size();) {
    const size_t line_end = text.find("\r\n", at);
    const size_t colon = text.find(": ", at);
    std::string name = text.substr(at, colon - at);
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    reply.headers.emplace(name, text.substr(colon + 2, line_end - colon - 2));
    at = line_end + 2;
  }
  if (head || reply.status == 100) return reply;
  if (reply.header("transfer-encoding") != "chunked") {
    const std::string length = reply.header("content-length");
    const size_t size = length.empty() ? std::string::npos : std::stoul(length);
    while (buffer_.size() < size && fill()) {
    }
    reply.body = buffer_.substr(0, std::min(size, buffer_.size()));
    buffer_.erase(0, reply.body.size());
    return reply;
  }
  while (true) {
    size_t line_end;
    while ((line_end = buffer_.find("\r\n")) == std::string::npos) {
      if (!fill()) return reply;
    }
    const size_t size = std::stoul(buffer_.substr(0, line_end), nullptr, 16);
    while (buffer_.size() < line_end + 2 + size + 2) {
      if (!fill()) return reply;
    }
    reply.body += buffer_.substr(line_end + 2, size);
    buffer_.erase(0, line_end + 2 + size + 2);
    if (size == 0) return reply;
  }
}

std::string http_request(std::string_view method, std::string_view path, std::string_view body,
                         std::string_view extra_headers) {
  std::string text = fmt::format("{} {} HTTP/1.1\r\nHost: test\r\n{}", method, path, extra_headers);
  if (!body.empty() || method == "POST") text += fmt::format("Content-Length: {}\r\n", body.size());
  return text + "\r\n" + std::string(body);
}

HttpReply http_call(uint16_t port, std::string_view method, std::string_view path, std::string_view body,
                    std::string_view extra_headers) {
  TestClient client(port);
  client.send(http_request(method, path, body, extra_headers));
  return client.read_reply(method == "HEAD");
}

}  // namespace hadal
