#include "stream_clients.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

struct Order {
  uint16_t port = 0;
  int32_t num_streams = 0;
  uint32_t request_bytes = 0;  // follow
};

void write_all(int fd, const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(fd, at, size);
    if (written <= 0) throw std::runtime_error("write failed");
    at += written;
    size -= static_cast<size_t>(written);
  }
}

bool read_all(int fd, void* data, size_t size) {
  char* at = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t got = ::read(fd, at, size);
    if (got <= 0) return false;
    at += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

int connect_to(uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) throw std::runtime_error("connect");
  return fd;
}

// Counts a mark however the bytes are cut.
class Counter {
 public:
  explicit Counter(std::string_view mark) : mark_(mark) {}
  int64_t add(std::string_view bytes) {
    tail_ += bytes;
    int64_t count = 0;
    size_t at = 0;
    while ((at = tail_.find(mark_, at)) != std::string::npos) {
      ++count;
      at += mark_.size();
      kept_from_ = at;
    }
    const size_t keep = tail_.size() < mark_.size() ? 0 : tail_.size() - mark_.size() + 1;
    tail_.erase(0, std::max(keep, kept_from_));
    kept_from_ = 0;
    return count;
  }

 private:
  const std::string_view mark_;
  std::string tail_;
  size_t kept_from_ = 0;
};

struct Stream {
  pollfd* poll;
  Counter events{"data: "};
  Counter ends{"data: [DONE]"};
};

StreamResult read_streams(const Order& order, const std::string& request) {
  std::vector<pollfd> polls;
  std::vector<Stream> streams(static_cast<size_t>(order.num_streams));
  for (int i = 0; i < order.num_streams; ++i) polls.push_back({connect_to(order.port), POLLIN, 0});
  const auto begin = Clock::now();
  for (const pollfd& one : polls) write_all(one.fd, request.data(), request.size());
  StreamResult result;
  std::vector<char> buffer(1 << 18);
  for (int num_open = order.num_streams; num_open > 0;) {
    ::poll(polls.data(), polls.size(), -1);
    for (size_t i = 0; i < polls.size(); ++i) {
      if (polls[i].fd < 0 || polls[i].revents == 0) continue;
      const ssize_t size = ::read(polls[i].fd, buffer.data(), buffer.size());
      const std::string_view bytes(buffer.data(), static_cast<size_t>(std::max<ssize_t>(size, 0)));
      result.num_bytes += static_cast<int64_t>(bytes.size());
      result.num_events += streams[i].events.add(bytes);
      const bool ended = streams[i].ends.add(bytes) > 0;
      if (ended) ++result.num_ended;
      if (!ended && size > 0) continue;
      ::close(polls[i].fd);
      polls[i].fd = -1;
      --num_open;
    }
  }
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return result;
}

}  // namespace

StreamClients::StreamClients() {
  int down[2], up[2];
  if (::pipe(down) != 0 || ::pipe(up) != 0 || (child_ = ::fork()) < 0) throw std::runtime_error("cannot start clients");
  to_child_ = child_ == 0 ? up[1] : down[1];
  from_child_ = child_ == 0 ? down[0] : up[0];
  ::close(child_ == 0 ? up[0] : down[0]);
  ::close(child_ == 0 ? down[1] : up[1]);
  if (child_ == 0) serve();
}

StreamClients::~StreamClients() {
  ::close(to_child_);
  ::close(from_child_);
  ::waitpid(child_, nullptr, 0);
}

// In the child: the two pipes are the other way round.
void StreamClients::serve() {
  Order order;
  while (read_all(from_child_, &order, sizeof order)) {
    std::string request(order.request_bytes, '\0');
    if (!read_all(from_child_, request.data(), request.size())) break;
    const StreamResult result = read_streams(order, request);
    write_all(to_child_, &result, sizeof result);
  }
  ::_exit(0);
}

StreamResult StreamClients::run(uint16_t port, int num_streams, const std::string& path, const std::string& body) {
  const std::string request =
      fmt::format("POST {} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{}",
                  path, body.size(), body);
  const Order order{port, num_streams, static_cast<uint32_t>(request.size())};
  write_all(to_child_, &order, sizeof order);
  write_all(to_child_, request.data(), request.size());
  StreamResult result;
  if (!read_all(from_child_, &result, sizeof result)) throw std::runtime_error("the clients died");
  return result;
}

}  // namespace hadal
