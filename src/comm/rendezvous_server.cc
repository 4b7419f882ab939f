#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <cstring>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

#include "base/log.h"
#include "comm/net_address.h"
#include "comm/rendezvous.h"
#include "comm/rendezvous_frame.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kMaxConnections = 1024;
constexpr size_t kMaxStrangers = 128;        // connections that have not shown the token; then the oldest one goes
constexpr size_t kMaxHelloBytes = 16 << 10;  // kept of a stranger
constexpr size_t kMaxUnsentBytes = 1 << 20;  // then nothing more is read from a rank that does not read
constexpr size_t kMaxReceivedBytes = 4 + kMaxFrameBytes;  // of what a rank asks while it waits for a key
constexpr size_t kMaxKeys = 65536;
constexpr size_t kMaxTotalBytes = 256 << 20;  // of all values
constexpr size_t kMaxKeyBytes = 256;
constexpr size_t kMaxValueBytes = 64 << 10;
constexpr int kMostToldRefusals = 20;  // so that strangers cannot fill the log
constexpr milliseconds kHelloTime{10'000};
constexpr int64_t kMostWait = 3'600'000;

struct Connection {
  int fd = -1;
  bool known = false;  // has shown the token
  Clock::time_point since = Clock::now();
  std::string received, unsent;
  bool closing = false;  // once `unsent` is gone
  std::string wanted;    // a key that it waits for
  Clock::time_point wanted_until;
};

// Time does not depend on where they differ.
bool equal_in_constant_time(const std::string& a, const std::string& b) {
  size_t difference = a.size() ^ b.size();
  for (size_t i = 0; i < b.size(); ++i) {
    difference |= static_cast<unsigned char>(b[i]) ^ static_cast<unsigned char>(a.empty() ? 0 : a[i % a.size()]);
  }
  return difference == 0;
}

std::string peer_address(int fd) {
  sockaddr_storage peer{};
  socklen_t length = sizeof peer;
  const bool known = getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0;
  return known ? numeric_address(reinterpret_cast<sockaddr*>(&peer)) : "an unknown address";
}

Expected<int> listen_on(const RendezvousOptions& options, uint16_t* port) {
  if (options.address.empty() || options.address == "0.0.0.0" || options.address == "::") {
    return make_error(ErrorCode::kInvalidArgument,
                      "rendezvous address \"{}\": give the one address that the other nodes reach, ports of ranks are "
                      "not opened on all interfaces",
                      options.address);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int resolved = getaddrinfo(options.address.c_str(), std::to_string(options.port).c_str(), &hints, &found);
  if (resolved != 0) {
    return make_error(ErrorCode::kIo, "rendezvous address {}: {}", options.address, gai_strerror(resolved));
  }
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const bool listens = fd >= 0 && bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 256) == 0;
  const int error = errno;
  freeaddrinfo(found);
  if (!listens) {
    if (fd >= 0) close(fd);
    return make_error(ErrorCode::kIo, "cannot listen for ranks on {}:{}: {}{}", options.address, options.port,
                      std::strerror(error),
                      error != EADDRNOTAVAIL ? "" : "; rank 0 runs where that address is: is this another node?");
  }
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &length);
  *port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                            : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  return fd;
}

}  // namespace

struct RendezvousServer::Impl {
  explicit Impl(const RendezvousOptions& given) : options(given) {}
  ~Impl();

  void loop();
  void accept_all();
  void serve(Connection& connection, short events);
  void read(Connection& connection);
  void handle_received(Connection& connection);
  bool answer_wanted(Connection& connection);
  void write(Connection& connection);
  void handle(Connection& connection, Frame&& frame);
  void greet(Connection& connection, const Frame& frame);
  void set(Connection& connection, Frame&& frame);
  void get(Connection& connection, Frame&& frame);
  void refuse(Connection& connection, std::string why);
  void refuse_rank(Connection& connection, std::string why);
  void answer(Connection& connection, FrameKind kind, std::vector<std::string> strings = {}) {
    connection.unsent += encode_frame({kind, std::move(strings)});
  }
  int next_timeout_ms() const;
  void count_ranks();

  const RendezvousOptions options;
  uint16_t port = 0;
  int listener = -1;
  int wake = -1;
  std::atomic<bool> stopping{false};
  std::list<Connection> connections;
  std::map<std::string, std::string> values;
  size_t num_bytes = 0;  // of all values
  bool changed = false;  // a value was set: look at all that wait
  int num_told_refusals = 0;
  std::mutex mutex;
  std::condition_variable counted;
  int num_ranks = 0;  // connections that have shown the token; under mutex
  std::thread thread;
};

RendezvousServer::Impl::~Impl() {
  stopping = true;
  const uint64_t one = 1;
  if (wake >= 0) (void)!::write(wake, &one, sizeof one);
  if (thread.joinable()) thread.join();
  for (const Connection& connection : connections) close(connection.fd);
  if (listener >= 0) close(listener);
  if (wake >= 0) close(wake);
}

void RendezvousServer::Impl::loop() {
  std::vector<pollfd> entries;
  while (!stopping) {
    entries = {{.fd = wake, .events = POLLIN, .revents = 0},
               {.fd = connections.size() < kMaxConnections ? listener : -1, .events = POLLIN, .revents = 0}};
    for (const Connection& connection : connections) {
      const bool has_room =
          connection.unsent.size() < kMaxUnsentBytes && connection.received.size() < kMaxReceivedBytes;
      const int in = has_room ? POLLIN : 0;
      const int out = connection.unsent.empty() ? 0 : POLLOUT;
      entries.push_back({.fd = connection.fd, .events = static_cast<short>(in | out), .revents = 0});
    }
    poll(entries.data(), entries.size(), next_timeout_ms());
    changed = false;
    size_t i = 2;
    for (auto it = connections.begin(); it != connections.end(); ++i) {
      serve(*it, entries[i].revents);
      if (it->fd >= 0) {
        ++it;
      } else {
        it = connections.erase(it);
      }
    }
    count_ranks();
    if (entries[1].revents != 0) accept_all();
  }
}

void RendezvousServer::Impl::count_ranks() {
  const auto count = std::count_if(connections.begin(), connections.end(),
                                   [](const Connection& connection) { return connection.known; });
  const std::lock_guard lock(mutex);
  num_ranks = static_cast<int>(count);
  counted.notify_all();
}

int RendezvousServer::Impl::next_timeout_ms() const {
  if (changed) return 0;
  milliseconds least{60'000};
  const auto now = Clock::now();
  for (const Connection& connection : connections) {
    const auto until = !connection.known            ? connection.since + kHelloTime
                       : !connection.wanted.empty() ? connection.wanted_until
                                                    : now + least;
    least = std::min(least, std::chrono::duration_cast<milliseconds>(until - now));
  }
  return static_cast<int>(std::max<int64_t>(0, least.count() + 1));
}

void RendezvousServer::Impl::accept_all() {
  while (connections.size() < kMaxConnections) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    connections.emplace_back().fd = fd;
    const auto is_stranger = [](const Connection& connection) { return !connection.known && connection.fd >= 0; };
    if (static_cast<size_t>(std::count_if(connections.begin(), connections.end(), is_stranger)) > kMaxStrangers) {
      const auto oldest = std::find_if(connections.begin(), connections.end(), is_stranger);
      close(oldest->fd);
      connections.erase(oldest);
    }
  }
}

void RendezvousServer::Impl::serve(Connection& connection, short events) {
  if (events & (POLLIN | POLLHUP | POLLERR)) read(connection);
  handle_received(connection);
  if (!connection.known && Clock::now() - connection.since > kHelloTime) connection.closing = true;
  if (connection.fd >= 0) write(connection);
  if (connection.fd >= 0 && connection.closing && connection.unsent.empty()) {
    close(connection.fd);
    connection.fd = -1;
  }
}

void RendezvousServer::Impl::read(Connection& connection) {
  char buffer[16384];
  const ssize_t got = recv(connection.fd, buffer, sizeof buffer, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    close(connection.fd);
    connection.fd = -1;
    return;
  }
  if (connection.closing) return;
  connection.received.append(buffer, static_cast<size_t>(got));
  if (!connection.known && connection.received.size() > kMaxHelloBytes) {
    return refuse(connection, "a greeting of more than 16 KiB: not a hadal rank?");
  }
}

// In the order in which they came: a rank that gave up waiting for an answer has asked the next question already.
void RendezvousServer::Impl::handle_received(Connection& connection) {
  while (connection.fd >= 0 && !connection.closing && connection.unsent.size() < kMaxUnsentBytes) {
    if (!connection.wanted.empty()) {
      if (!answer_wanted(connection)) return;
      continue;
    }
    auto frame = take_frame(connection.received);
    if (!frame) return refuse(connection, frame.error().message);
    if (!*frame) return;
    handle(connection, std::move(**frame));
  }
}

// Whether the key is there, or its time is over.
bool RendezvousServer::Impl::answer_wanted(Connection& connection) {
  const auto found = values.find(connection.wanted);
  if (found == values.end() && Clock::now() < connection.wanted_until) return false;
  connection.wanted.clear();
  found != values.end() ? answer(connection, FrameKind::kValue, {found->second}) : answer(connection, FrameKind::kOk);
  return true;
}

void RendezvousServer::Impl::write(Connection& connection) {
  if (connection.unsent.empty()) return;
  const ssize_t sent = send(connection.fd, connection.unsent.data(), connection.unsent.size(), MSG_NOSIGNAL);
  if (sent > 0) {
    connection.unsent.erase(0, static_cast<size_t>(sent));
  } else if (errno != EAGAIN && errno != EINTR) {
    close(connection.fd);
    connection.fd = -1;
  }
}

void RendezvousServer::Impl::handle(Connection& connection, Frame&& frame) {
  if (!connection.known) return greet(connection, frame);
  if (frame.kind == FrameKind::kSet) return set(connection, std::move(frame));
  if (frame.kind == FrameKind::kGet) return get(connection, std::move(frame));
  refuse(connection, "unexpected frame");
}

void RendezvousServer::Impl::greet(Connection& connection, const Frame& frame) {
  if (frame.kind != FrameKind::kHello || frame.strings.empty() ||
      !equal_in_constant_time(options.token, frame.strings[0])) {
    return refuse_rank(connection, "wrong token: this rank belongs to another group or an earlier start");
  }
  std::map<std::string, std::string> theirs;
  for (size_t i = 1; i < frame.strings.size(); ++i) {
    const std::string& fact = frame.strings[i];
    const size_t equals = std::min(fact.find('='), fact.size());
    theirs[fact.substr(0, equals)] = fact.substr(std::min(equals + 1, fact.size()));
  }
  for (const auto& [name, value] : options.facts) {
    if (theirs[name] == value) continue;
    return refuse_rank(connection, fmt::format("{} differs: rank 0 has \"{}\", rank {} has \"{}\"", name, value,
                                               theirs["rank"], theirs[name]));
  }
  connection.known = true;
  count_ranks();  // before the rank learns that it is known
  answer(connection, FrameKind::kOk);
}

void RendezvousServer::Impl::set(Connection& connection, Frame&& frame) {
  if (frame.strings.size() != 2 || frame.strings[0].empty() || frame.strings[0].size() > kMaxKeyBytes ||
      frame.strings[1].size() > kMaxValueBytes || values.size() >= kMaxKeys) {
    return refuse(connection, fmt::format("set takes a key of at most {} and a value of at most {} bytes, {} keys",
                                          kMaxKeyBytes, kMaxValueBytes, kMaxKeys));
  }
  const auto old = values.find(frame.strings[0]);
  const size_t others = num_bytes - (old == values.end() ? 0 : old->second.size());
  if (others + frame.strings[1].size() > kMaxTotalBytes) {
    return refuse(connection, fmt::format("the ranks have left more than {} bytes here", kMaxTotalBytes));
  }
  num_bytes = others + frame.strings[1].size();
  values[std::move(frame.strings[0])] = std::move(frame.strings[1]);
  changed = true;
  answer(connection, FrameKind::kOk);
}

void RendezvousServer::Impl::get(Connection& connection, Frame&& frame) {
  int64_t wait_ms = -1;
  if (frame.strings.size() == 2) {
    const std::string& text = frame.strings[1];
    std::from_chars(text.data(), text.data() + text.size(), wait_ms);
  }
  if (wait_ms < 0 || wait_ms > kMostWait || frame.strings[0].empty()) {
    return refuse(connection, fmt::format("get takes a key and at most {} milliseconds", kMostWait));
  }
  connection.wanted = std::move(frame.strings[0]);
  connection.wanted_until = Clock::now() + milliseconds(wait_ms);
}

void RendezvousServer::Impl::refuse(Connection& connection, std::string why) {
  answer(connection, FrameKind::kRefusal, {std::move(why)});
  connection.closing = true;
}

// Rank 0's log says it too: whoever waits there for the rank would not know why it does not come.
void RendezvousServer::Impl::refuse_rank(Connection& connection, std::string why) {
  if (num_told_refusals < kMostToldRefusals) {
    ++num_told_refusals;
    log_warning("a rank at {} was refused: {}", peer_address(connection.fd), why);
  }
  refuse(connection, std::move(why));
}

Expected<std::unique_ptr<RendezvousServer>> RendezvousServer::start(const RendezvousOptions& options) {
  auto impl = std::make_unique<Impl>(options);
  HADAL_ASSIGN_OR_RETURN(impl->listener, listen_on(options, &impl->port));
  impl->wake = eventfd(0, EFD_CLOEXEC);
  impl->thread = std::thread([raw = impl.get()] { raw->loop(); });
  return std::unique_ptr<RendezvousServer>(new RendezvousServer(std::move(impl)));
}

RendezvousServer::RendezvousServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RendezvousServer::~RendezvousServer() = default;
uint16_t RendezvousServer::port() const { return impl_->port; }

bool RendezvousServer::wait_for_departures(int most, milliseconds timeout) {
  std::unique_lock lock(impl_->mutex);
  return impl_->counted.wait_for(lock, timeout, [&] { return impl_->num_ranks <= most; });
}

}  // namespace hadal
