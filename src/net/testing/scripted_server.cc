#include "net/testing/scripted_server.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace hadal {
namespace {

bool is_whole(const std::string& request) {
  const size_t head = request.find("\r\n\r\n"), length = request.find("Content-Length: ");
  if (head == std::string::npos) return false;
  return length == std::string::npos || request.size() >= head + 4 + std::stoul(request.substr(length + 16));
}

}  // namespace

ScriptedServer::ScriptedServer(std::vector<std::string> answers, bool silent) {
  listen_on("");
  if (silent) return;
  const size_t count = answers.size();
  auto next = std::make_shared<size_t>(0);
  thread_ = std::thread([this, count, answers = std::move(answers), next] {
    serve(
        [answers, next](ScriptedServer& server, int fd) {
          server.read_request(fd);
          send(fd, answers[(*next)++]);
        },
        count);
  });
}

ScriptedServer::ScriptedServer(Script script, const std::string& socket_path) {
  listen_on(socket_path);
  thread_ = std::thread([this, script = std::move(script)] { serve(script, SIZE_MAX); });
}

ScriptedServer::~ScriptedServer() {
  ::shutdown(listener_, SHUT_RDWR);
  if (thread_.joinable()) thread_.join();
  ::close(listener_);
  if (!socket_path_.empty()) ::unlink(socket_path_.c_str());
}

void ScriptedServer::listen_on(const std::string& socket_path) {
  socket_path_ = socket_path;
  if (!socket_path.empty()) {
    listener_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{.sun_family = AF_UNIX};
    ASSERT_LT(socket_path.size(), sizeof(address.sun_path));
    std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);
    ASSERT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    url = "unix:" + socket_path;
  } else {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(address);
    ASSERT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), length), 0);
    ASSERT_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length), 0);
    url = fmt::format("http://127.0.0.1:{}", ntohs(address.sin_port));
  }
  ASSERT_EQ(::listen(listener_, 256), 0);
}

void ScriptedServer::serve(Script script, size_t most) {
  std::vector<std::thread> clients;
  const bool in_order = most != SIZE_MAX;
  for (size_t i = 0; i < most; ++i) {
    const int fd = ::accept(listener_, nullptr, nullptr);
    if (fd < 0) break;
    clients.emplace_back([this, fd, &script] {
      script(*this, fd);
      ::shutdown(fd, SHUT_WR);
      wait_for_close(fd);  // closing with the request unread would reset the connection and with it the answer
      ::close(fd);
    });
    if (in_order) clients.back().join();
  }
  for (std::thread& client : clients) {
    if (client.joinable()) client.join();
  }
}

std::string ScriptedServer::read_request(int fd) {
  std::string request;
  char buffer[4096];
  while (!is_whole(request)) {
    const ssize_t got = ::recv(fd, buffer, sizeof(buffer), 0);
    if (got <= 0) return "";
    request.append(buffer, static_cast<size_t>(got));
  }
  const std::lock_guard lock(mutex_);
  requests.push_back(request);
  return request;
}

bool ScriptedServer::send(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

void ScriptedServer::wait_for_close(int fd) {
  std::vector<char> buffer(1 << 16);
  while (::recv(fd, buffer.data(), buffer.size(), 0) > 0) {
  }
}

}  // namespace hadal
