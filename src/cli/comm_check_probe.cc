#include "cli/comm_check_probe.h"

#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// A question: 64 bytes, so that pings are as small as a barrier. Answers to pings have the same form.
struct Question {
  char kind = 0;  // 'H'ello, 'P'ing, 'U'pload, 'D'ownload, 'Q'uit
  char nonce[39] = {};
  int64_t num_bytes = 0;
  double wall_seconds = 0;
  char unused[8] = {};
};
static_assert(sizeof(Question) == 64);

constexpr int64_t kFirstLarge = 64 << 10;  // the first message that fills whole packets
constexpr int64_t kMostBytes = int64_t{1} << 30;

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// A connection whose operations return an errno, 0 for done; ETIMEDOUT after the deadline, ECONNRESET at its end.
class Connection {
 public:
  explicit Connection(int fd) : fd_(fd) {
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  ~Connection() { close(fd_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void set_limit(milliseconds limit) { deadline_ = Clock::now() + limit; }

  int send(const void* data, size_t num_bytes) {
    const char* bytes = static_cast<const char*>(data);
    while (num_bytes > 0) {
      const ssize_t sent = ::send(fd_, bytes, num_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0) {
        bytes += sent;
        num_bytes -= static_cast<size_t>(sent);
      } else if (const int error = wait(POLLOUT); error != 0) {
        return error;
      }
    }
    return 0;
  }
  int receive(void* data, size_t num_bytes) {
    char* bytes = static_cast<char*>(data);
    while (num_bytes > 0) {
      const ssize_t got = recv(fd_, bytes, num_bytes, MSG_DONTWAIT);
      if (got == 0) return ECONNRESET;
      if (got > 0) {
        bytes += got;
        num_bytes -= static_cast<size_t>(got);
      } else if (const int error = wait(POLLIN); error != 0) {
        return error;
      }
    }
    return 0;
  }
  int send_zeros(int64_t num_bytes) {
    return pass(num_bytes, [&](char* data, size_t size) { return send(data, size); });
  }
  int drop(int64_t num_bytes) {
    return pass(num_bytes, [&](char* data, size_t size) { return receive(data, size); });
  }

  // Whether the other machine has acknowledged all that was sent.
  bool all_arrived() const {
    int num_unacknowledged = 0;
    return ioctl(fd_, SIOCOUTQ, &num_unacknowledged) == 0 && num_unacknowledged == 0;
  }

 private:
  int wait(short events) {
    if (errno != EAGAIN && errno != EINTR) return errno;
    const auto left = std::chrono::duration_cast<milliseconds>(deadline_ - Clock::now()).count();
    pollfd entry{.fd = fd_, .events = events, .revents = 0};
    if (left <= 0 || poll(&entry, 1, static_cast<int>(left)) == 0) return ETIMEDOUT;
    return 0;
  }
  template <typename Piece>
  int pass(int64_t num_bytes, const Piece& piece) {
    buffer_.resize(256 << 10);
    while (num_bytes > 0) {
      const size_t size = static_cast<size_t>(std::min<int64_t>(num_bytes, static_cast<int64_t>(buffer_.size())));
      if (const int error = piece(buffer_.data(), size); error != 0) return error;
      num_bytes -= static_cast<int64_t>(size);
    }
    return 0;
  }

  const int fd_;
  Clock::time_point deadline_;
  std::vector<char> buffer_;
};

Question question_of(char kind, const std::string& nonce, int64_t num_bytes = 0) {
  Question question{.kind = kind, .num_bytes = num_bytes, .wall_seconds = wall_seconds()};
  std::memcpy(question.nonce, nonce.data(), std::min(nonce.size(), sizeof question.nonce));
  return question;
}

// A socket connected to it, or -1 with errno.
int connect_to(const std::string& address, int port, milliseconds limit) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    errno = EINVAL;
    return -1;
  }
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int error = fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0 ? errno : 0;
  freeaddrinfo(found);
  if (fd >= 0 && error == EINPROGRESS) {
    pollfd entry{.fd = fd, .events = POLLOUT, .revents = 0};
    error = ETIMEDOUT;
    socklen_t length = sizeof error;
    if (poll(&entry, 1, static_cast<int>(limit.count())) > 0) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  }
  if (error == 0) return fd;
  if (fd >= 0) close(fd);
  errno = error;
  return -1;
}

// The steps of the connecting side, in order; the first that fails is the pair's fault.
class PairProbe {
 public:
  PairProbe(Connection& connection, const NodeCard& own, const NodeCard& peer, const ProbeLimits& limits,
            PairResult* result)
      : connection_(connection), own_(own), peer_(peer), limits_(limits), result_(*result) {}

  void run() {
    if (!ping() || !send_large() || !receive_large() || !measure_bandwidth()) return;
    const Question quit = question_of('Q', "");
    connection_.send(&quit, sizeof quit);
  }

 private:
  bool ask(char kind, int64_t num_bytes, int* error) {
    const Question question = question_of(kind, peer_.nonce, num_bytes);
    *error = connection_.send(&question, sizeof question);
    return *error == 0;
  }
  bool answer(int* error) {
    *error = connection_.receive(&answer_, sizeof answer_);
    return *error == 0;
  }
  bool ping();
  bool send_large();
  bool receive_large();
  bool measure_bandwidth();
  bool lost(int error, const char* step) {
    const std::string peer = fmt::format("node {} ({} {})", peer_.node_rank, peer_.host, peer_.address);
    if (error == ETIMEDOUT) {
      return fault("peer-frozen",
                   fmt::format("node {}: {} is connected, but stopped answering in {}", own_.node_rank, peer, step),
                   fmt::format("see what node {} does: stopped, swapping, or its link is down", peer_.node_rank));
    }
    return fault(
        "peer-dead",
        fmt::format("node {}: {} closed the connection in {}: {}", own_.node_rank, peer, step, std::strerror(error)),
        fmt::format("see why hadal ended on node {} (its messages, dmesg)", peer_.node_rank));
  }
  bool black_hole(const char* direction) {
    return fault("mtu-black-hole",
                 fmt::format("node {} and node {}: small packets pass, large ones vanish ({}); MTU {} here, {} there",
                             own_.node_rank, peer_.node_rank, direction, own_.mtu, peer_.mtu),
                 "a switch or tunnel between them passes only smaller packets: raise its MTU, or lower that of both "
                 "interfaces (ip link set DEV mtu 1500)");
  }
  bool fault(std::string name, std::string found, std::string fix) {
    result_.fault = Fault{std::move(name), {own_.node_rank, peer_.node_rank}, std::move(found), std::move(fix)};
    return false;
  }

  Connection& connection_;
  const NodeCard& own_;
  const NodeCard& peer_;
  const ProbeLimits& limits_;
  PairResult& result_;
  Question answer_;
};

bool PairProbe::ping() {
  int error = 0;
  connection_.set_limit(limits_.step);
  if (!ask('H', 0, &error) || !answer(&error)) return lost(error, "the greeting");
  std::vector<double> round_trips;
  double best = 1e9;
  for (int i = 0; i < limits_.num_pings; ++i) {
    const auto begin = Clock::now();
    const double sent = wall_seconds();
    if (!ask('P', 0, &error) || !answer(&error)) return lost(error, "a ping");
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    round_trips.push_back(seconds);
    if (seconds >= best) continue;
    best = seconds;  // the quickest one tells the clocks apart best
    result_.clock_difference = answer_.wall_seconds - (sent + seconds / 2);
  }
  std::nth_element(round_trips.begin(), round_trips.begin() + round_trips.size() / 2, round_trips.end());
  result_.latency_us = round_trips[round_trips.size() / 2] / 2 * 1e6;
  return true;
}

bool PairProbe::send_large() {
  int error = 0;
  connection_.set_limit(limits_.step);
  if (ask('U', kFirstLarge, &error)) error = connection_.send_zeros(kFirstLarge);
  if (error == 0 && answer(&error)) return true;
  return error == ETIMEDOUT && !connection_.all_arrived() ? black_hole("from the first to the second")
                                                          : lost(error, "the first large message");
}

bool PairProbe::receive_large() {
  int error = 0;
  connection_.set_limit(limits_.step);
  if (ask('D', kFirstLarge, &error)) error = connection_.drop(kFirstLarge);
  if (error == 0) return true;
  return error == ETIMEDOUT && connection_.all_arrived() ? black_hole("from the second to the first")
                                                         : lost(error, "the first large message");
}

bool PairProbe::measure_bandwidth() {
  const int64_t total = limits_.bandwidth_bytes;
  int error = 0;
  result_.bandwidth = 1e15;
  for (const char kind : {'U', 'D'}) {
    connection_.set_limit(limits_.bandwidth);
    const auto begin = Clock::now();
    if (!ask(kind, total, &error)) return lost(error, "the measurement of bandwidth");
    error = kind == 'U' ? connection_.send_zeros(total) : connection_.drop(total);
    if (error != 0 || (kind == 'U' && !answer(&error))) {
      if (error != ETIMEDOUT) return lost(error, "the measurement of bandwidth");
      return fault("link-stalls",
                   fmt::format("node {} and node {}: {} MiB did not pass within {} s", own_.node_rank, peer_.node_rank,
                               total >> 20, limits_.bandwidth.count() / 1000),
                   "the link loses packets, went down, or is slower than 30 Mbit/s; or the other node stopped: see ip "
                   "-s link on both");
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    result_.bandwidth = std::min(result_.bandwidth, static_cast<double>(total) / seconds);
  }
  return true;
}

// Answers questions until the end; an errno, 0 after a goodbye.
int answer_all(Connection& connection, const ProbeLimits& limits) {
  for (;;) {
    Question question;
    connection.set_limit(limits.step + limits.bandwidth);
    if (const int error = connection.receive(&question, sizeof question); error != 0) return error;
    if (question.kind == 'Q') return 0;
    if (question.num_bytes < 0 || question.num_bytes > kMostBytes) return EINVAL;
    int error = 0;
    if (question.kind == 'U') error = connection.drop(question.num_bytes);
    const Question answer = question_of('A', "");
    if (error == 0) {
      error =
          question.kind == 'D' ? connection.send_zeros(question.num_bytes) : connection.send(&answer, sizeof answer);
    }
    if (error != 0) return error;
  }
}

}  // namespace

Expected<std::unique_ptr<ProbeListener>> ProbeListener::open(const std::string& address, int port, std::string nonce) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    return make_error(ErrorCode::kIo, "{} is no address", address);
  }
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const bool listens = fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 16) == 0;
  const int error = errno;
  freeaddrinfo(found);
  if (!listens) {
    if (fd >= 0) close(fd);
    return make_error(ErrorCode::kIo, "cannot listen on {}:{}: {}", address, port, std::strerror(error));
  }
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length);
  const int chosen = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                                       : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  return std::unique_ptr<ProbeListener>(new ProbeListener(fd, chosen, std::move(nonce)));
}

ProbeListener::~ProbeListener() { close(fd_); }

std::optional<Fault> ProbeListener::serve(int from, int own, const ProbeLimits& limits) {
  const auto deadline = Clock::now() + limits.step + milliseconds(1'000);
  for (;;) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now()).count();
    pollfd entry{.fd = fd_, .events = POLLIN, .revents = 0};
    if (left <= 0 || poll(&entry, 1, static_cast<int>(left)) <= 0) return std::nullopt;
    const int accepted = accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted < 0) continue;
    Connection connection(accepted);
    Question hello;
    connection.set_limit(milliseconds(1'000));
    const Question expected = question_of('H', nonce_);
    if (connection.receive(&hello, sizeof hello) != 0 || hello.kind != 'H' ||
        std::memcmp(hello.nonce, expected.nonce, sizeof hello.nonce) != 0) {
      continue;
    }
    const Question welcome = question_of('A', "");
    connection.set_limit(limits.step);
    int error = connection.send(&welcome, sizeof welcome);
    if (error == 0) error = answer_all(connection, limits);
    if (error == 0) return std::nullopt;
    const bool is_frozen = error == ETIMEDOUT;
    return Fault{is_frozen ? "peer-frozen" : "peer-dead",
                 {own, from},
                 fmt::format("node {}: node {} {} while it measured: {}", own, from,
                             is_frozen ? "stopped" : "closed the connection", std::strerror(error)),
                 fmt::format("see what node {} does, and its messages", from)};
  }
}

PairResult probe_pair(const NodeCard& own, const NodeCard& peer, const ProbeLimits& limits) {
  PairResult result{.from = own.node_rank, .to = peer.node_rank};
  const int fd = connect_to(peer.address, peer.probe_port, limits.step);
  if (fd < 0) {
    result.fault =
        connect_fault(errno, own.node_rank, peer.node_rank, fmt::format("node {}'s port for measuring", peer.node_rank),
                      peer.address, peer.probe_port);
    if (result.fault->name == "port-refused") {  // it listened when it showed its card
      result.fault->name = "peer-dead";
      result.fault->fix =
          fmt::format("see why hadal ended on node {}; a firewall that rejects looks the same", peer.node_rank);
    }
    return result;
  }
  Connection connection(fd);
  PairProbe(connection, own, peer, limits, &result).run();
  return result;
}

}  // namespace hadal
