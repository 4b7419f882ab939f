// What systemd is told about a service of Type=notify: datagrams of NAME=VALUE lines to $NOTIFY_SOCKET (sd_notify(3)).
// Without that variable nothing is sent.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace hadal {

// Thread-safe. Failures to send are ignored: the service works without.
class ServiceNotifier {
 public:
  // `socket`: a path, or '@' and an abstract name; empty: silent.
  explicit ServiceNotifier(std::string socket);
  ~ServiceNotifier();
  ServiceNotifier(const ServiceNotifier&) = delete;
  ServiceNotifier& operator=(const ServiceNotifier&) = delete;

  bool enabled() const { return fd_ >= 0; }
  // "READY=1\nSTATUS=serving"
  void send(const std::string& lines) const;
  // Progress of a long start: shown by `systemctl status`, and the start may take `extension` longer from now. Not more
  // often than once a second.
  void report_loading(double fraction, std::chrono::seconds extension);
  // Sends WATCHDOG=1 twice per period, from its own thread, while alive() is true. Once; ends with the
  // object.
  void start_watchdog(std::chrono::microseconds period, std::function<bool()> alive);
  // Joins its thread; alive() is not called afterwards. Idempotent.
  void stop_watchdog();

 private:
  std::string socket_;
  int fd_ = -1;
  std::chrono::steady_clock::time_point last_report_;
  std::mutex mutex_;
  std::condition_variable stop_changed_;
  bool stop_ = false;
  std::thread watchdog_;
};

// From WATCHDOG_USEC and WATCHDOG_PID (nothing: no watchdog, or it is meant for another process).
std::optional<std::chrono::microseconds> watchdog_period(const char* usec, const char* pid);

}  // namespace hadal
