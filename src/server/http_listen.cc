#include "server/http_listen.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace hadal {
namespace {

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

void set_option(int fd, int level, int name, int value) { ::setsockopt(fd, level, name, &value, sizeof value); }

// 0, or errno.
int bind_and_listen(int fd, const sockaddr* address, socklen_t size) {
  return ::bind(fd, address, size) != 0 || ::listen(fd, SOMAXCONN) != 0 ? errno : 0;
}

uint16_t bound_port(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  return address.ss_family == AF_INET6 ? ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port)
                                       : ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

// Makes way for a new socket at this path.
Status clear_socket_path(const std::string& path, const sockaddr_un& address) {
  struct stat file {};
  if (::lstat(path.c_str(), &file) != 0) return {};
  if (!S_ISSOCK(file.st_mode)) {
    return make_error(ErrorCode::kIo, "cannot listen on unix socket {}: a file that is no socket is there", path);
  }
  const Descriptor probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    return make_error(ErrorCode::kIo, "cannot listen on unix socket {}: another server listens there", path);
  }
  if (errno != ECONNREFUSED) {
    return make_error(ErrorCode::kIo, "cannot listen on unix socket {}: {}", path, std::strerror(errno));
  }
  if (::unlink(path.c_str()) != 0) {
    return make_error(ErrorCode::kIo, "cannot remove the stale unix socket {}: {}", path, std::strerror(errno));
  }
  return {};
}

}  // namespace

Expected<ListenSocket> listen_tcp(const std::string& host, uint16_t port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* list = nullptr;
  const int failed = ::getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &list);
  const Addresses addresses(list);
  if (failed != 0) return make_error(ErrorCode::kIo, "cannot listen on {}: {}", host, ::gai_strerror(failed));
  int reason = 0;
  for (const addrinfo* one = addresses.get(); one != nullptr; one = one->ai_next) {
    Descriptor fd(::socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd.get() < 0) {
      reason = errno;
      continue;
    }
    set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (one->ai_family == AF_INET6) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
    reason = bind_and_listen(fd.get(), one->ai_addr, one->ai_addrlen);
    if (reason != 0) continue;
    ListenSocket result;
    result.family = one->ai_family;
    result.port = bound_port(fd.get());
    result.fd = fd.release();
    return result;
  }
  return make_error(ErrorCode::kIo, "cannot listen on {}:{}: {}", host, port, std::strerror(reason));
}

Expected<ListenSocket> listen_unix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return make_error(ErrorCode::kInvalidArgument, "unix socket {}: {} bytes, at most {} are possible", path,
                      path.size(), sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  HADAL_RETURN_IF_ERROR(clear_socket_path(path, address));
  Descriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  int reason = fd.get() < 0 ? errno : 0;
  if (reason == 0 && ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) reason = errno;
  // Nobody can connect before listen(), so the file never is open to more than it should be.
  if (reason == 0 && ::chmod(path.c_str(), 0660) != 0) reason = errno;
  if (reason == 0 && ::listen(fd.get(), SOMAXCONN) != 0) reason = errno;
  if (reason != 0) {
    return make_error(ErrorCode::kIo, "cannot listen on unix socket {}: {}", path, std::strerror(reason));
  }
  ListenSocket result{.family = AF_UNIX, .path = path};
  struct stat file {};
  if (::lstat(path.c_str(), &file) == 0) {
    result.device = file.st_dev;
    result.inode = file.st_ino;
  }
  result.fd = fd.release();
  return result;
}

void remove_unix_socket(const ListenSocket& socket) {
  if (socket.path.empty()) return;
  struct stat file {};
  if (::lstat(socket.path.c_str(), &file) != 0) return;
  if (file.st_dev == socket.device && file.st_ino == socket.inode) ::unlink(socket.path.c_str());
}

std::string peer_name(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "unknown";
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    ::inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return fmt::format("{}:{}", text, ntohs(v4.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    ::inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    return fmt::format("[{}]:{}", text, ntohs(v6.sin6_port));
  }
  return "unix";
}

void tune_connection(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

void raise_open_file_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
}

}  // namespace hadal
