#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <thread>

#include "comm/rendezvous.h"
#include "comm/rendezvous_frame.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

milliseconds left_until(Clock::time_point deadline) {
  return std::max(milliseconds(0), std::chrono::duration_cast<milliseconds>(deadline - Clock::now()));
}

// -1 with errno set when nobody answers within the time.
int connect_once(const addrinfo& where, milliseconds limit) {
  const int fd = socket(where.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  int error = connect(fd, where.ai_addr, where.ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd entry{.fd = fd, .events = POLLOUT, .revents = 0};
    error = ETIMEDOUT;
    socklen_t length = sizeof error;
    if (poll(&entry, 1, static_cast<int>(limit.count())) > 0) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  }
  if (error == 0) return fd;
  close(fd);
  errno = error;
  return -1;
}

const char* advice_for(int error) {
  switch (error) {
    case ECONNREFUSED:
      return "the host answers, but nothing listens there: is rank 0 running, with this port?";
    case ETIMEDOUT:
      return "packets are dropped on the way (firewall), or the address is not rank 0's";
    default:
      return "is rank 0 running, and is there a route to it?";
  }
}

class RendezvousClient final : public KeyValueStore {
 public:
  RendezvousClient(int fd, std::string where, milliseconds answer_time)
      : fd_(fd), where_(std::move(where)), answer_time_(answer_time) {}
  ~RendezvousClient() override { close(fd_); }

  Status hello(const RendezvousOptions& options, int rank, milliseconds timeout) {
    Frame frame{FrameKind::kHello, {options.token, fmt::format("rank={}", rank)}};
    for (const auto& [name, value] : options.facts) frame.strings.push_back(name + "=" + value);
    return ask(frame, timeout).map([](const Frame&) {});
  }

  Status set(const std::string& key, const std::string& value) override {
    return ask({FrameKind::kSet, {key, value}}, answer_time_).map([](const Frame&) {});
  }

  Expected<std::string> get(const std::string& key, milliseconds timeout) override {
    HADAL_ASSIGN_OR_RETURN(Frame answer,
                           ask({FrameKind::kGet, {key, std::to_string(timeout.count())}}, timeout + answer_time_ / 2));
    if (answer.kind != FrameKind::kValue || answer.strings.size() != 1) {
      return make_error(ErrorCode::kUnavailable, "{}: key {} was not set within {} ms: a rank is missing", where_, key,
                        timeout.count());
    }
    return std::move(answer.strings[0]);
  }

 private:
  Expected<Frame> ask(const Frame& question, milliseconds timeout) {
    const std::lock_guard lock(mutex_);
    const auto deadline = Clock::now() + timeout;
    if (failure_) failure_ = write(encode_frame(question), deadline);  // half a question cannot be followed by another
    if (!failure_) return forward_error(Status(failure_));
    ++num_unanswered_;
    for (;;) {
      HADAL_ASSIGN_OR_RETURN(auto frame, take_frame(received_));
      if (!frame) {
        HADAL_RETURN_IF_ERROR(read(deadline));
        continue;
      }
      if (--num_unanswered_ > 0) continue;  // came too late for who asked
      if (frame->kind != FrameKind::kRefusal) return std::move(*frame);
      return make_error(ErrorCode::kInvalidArgument, "{}: {}", where_,
                        frame->strings.empty() ? "refused" : frame->strings[0]);
    }
  }

  Status wait(short events, Clock::time_point deadline) {
    pollfd entry{.fd = fd_, .events = events, .revents = 0};
    if (poll(&entry, 1, static_cast<int>(left_until(deadline).count())) > 0) return {};
    return make_error(ErrorCode::kUnavailable, "{} does not answer: is it the rank-0 address of this group?", where_);
  }

  Status write(std::string_view bytes, Clock::time_point deadline) {
    while (!bytes.empty()) {
      HADAL_RETURN_IF_ERROR(wait(POLLOUT, deadline));
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) bytes.remove_prefix(static_cast<size_t>(sent));
      if (sent < 0 && errno != EAGAIN && errno != EINTR) return lost();
    }
    return {};
  }

  Status read(Clock::time_point deadline) {
    HADAL_RETURN_IF_ERROR(wait(POLLIN, deadline));
    char buffer[4096];
    const ssize_t got = ::recv(fd_, buffer, sizeof buffer, 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return lost();
    if (got > 0) received_.append(buffer, static_cast<size_t>(got));
    return {};
  }

  Status lost() const {
    return make_error(ErrorCode::kUnavailable, "{} closed the connection: rank 0 has ended, or is no hadal", where_);
  }

  const int fd_;
  const std::string where_;
  const milliseconds answer_time_;
  std::mutex mutex_;
  std::string received_;
  int num_unanswered_ = 0;  // questions; answers come in their order
  Status failure_;          // of sending
};

}  // namespace

Expected<std::unique_ptr<KeyValueStore>> connect_rendezvous(const RendezvousOptions& options, int rank,
                                                            milliseconds timeout) {
  const std::string where = fmt::format("rendezvous {}:{}", options.address, options.port);
  const auto deadline = Clock::now() + timeout;
  for (;;) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const int resolved = getaddrinfo(options.address.c_str(), std::to_string(options.port).c_str(), &hints, &found);
    if (resolved != 0) {
      return make_error(ErrorCode::kUnavailable, "{}: the name is not known here ({}): give an IP address", where,
                        gai_strerror(resolved));
    }
    int fd = -1;
    for (const addrinfo* entry = found; entry != nullptr && fd < 0; entry = entry->ai_next) {
      fd = connect_once(*entry, std::min(left_until(deadline), milliseconds(2'000)));
    }
    const int error = errno;
    freeaddrinfo(found);
    if (fd >= 0) {
      auto client = std::make_unique<RendezvousClient>(fd, where, options.answer_time);
      const Status known = client->hello(options, rank, left_until(deadline));
      if (known) return client;
      // A server that had too many strangers, or is just being restarted.
      if (known.error().code != ErrorCode::kUnavailable || left_until(deadline).count() == 0) {
        return forward_error(Status(known));
      }
      std::this_thread::sleep_for(milliseconds(50));
      continue;
    }
    if (left_until(deadline).count() == 0) {
      return make_error(ErrorCode::kUnavailable, "{}: no connection within {} ms ({}): {}", where, timeout.count(),
                        std::strerror(error), advice_for(error));
    }
    std::this_thread::sleep_for(milliseconds(50));
  }
}

}  // namespace hadal
