#include "cli/service_notify.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace hadal {
namespace {

std::optional<int64_t> parse_positive(const char* text) {
  if (text == nullptr) return std::nullopt;
  int64_t value = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  if (error != std::errc() || stop != end || value <= 0) return std::nullopt;
  return value;
}

}  // namespace

ServiceNotifier::ServiceNotifier(std::string socket) : socket_(std::move(socket)) {
  const bool is_address = !socket_.empty() && (socket_.front() == '/' || socket_.front() == '@');
  if (is_address && socket_.size() < sizeof(sockaddr_un::sun_path))
    fd_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

ServiceNotifier::~ServiceNotifier() {
  stop_watchdog();
  if (fd_ >= 0) ::close(fd_);
}

void ServiceNotifier::send(const std::string& lines) const {
  if (fd_ < 0) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';  // abstract: its length ends it, not a zero byte
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  (void)::sendto(fd_, lines.data(), lines.size(), MSG_NOSIGNAL | MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&address),
                 length);
}

void ServiceNotifier::report_loading(double fraction, std::chrono::seconds extension) {
  if (fd_ < 0) return;
  {
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (now - last_report_ < std::chrono::seconds(1)) return;
    last_report_ = now;
  }
  send(fmt::format("STATUS=loading, {:.0f} %\nEXTEND_TIMEOUT_USEC={}", fraction * 100,
                   std::chrono::microseconds(extension).count()));
}

void ServiceNotifier::start_watchdog(std::chrono::microseconds period, std::function<bool()> alive) {
  if (fd_ < 0) return;
  watchdog_ = std::thread([this, period, alive = std::move(alive)] {
    std::unique_lock lock(mutex_);
    while (!stop_) {
      if (alive()) send("WATCHDOG=1");
      stop_changed_.wait_for(lock, period / 2, [this] { return stop_; });
    }
  });
}

void ServiceNotifier::stop_watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stop_changed_.notify_all();
  if (watchdog_.joinable()) watchdog_.join();
}

std::optional<std::chrono::microseconds> watchdog_period(const char* usec, const char* pid) {
  const std::optional<int64_t> period = parse_positive(usec);
  if (!period) return std::nullopt;
  if (pid != nullptr && parse_positive(pid) != static_cast<int64_t>(::getpid())) return std::nullopt;
  return std::chrono::microseconds(*period);
}

}  // namespace hadal
