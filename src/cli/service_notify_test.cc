// Datagrams to a socket as systemd's.
#include "cli/service_notify.h"

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "support/test_files.h"

namespace hadal {
namespace {

// A bound datagram socket; `name` as in $NOTIFY_SOCKET.
class Listener {
 public:
  explicit Listener(const std::string& name) : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    if (name[0] == '@') address.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    EXPECT_EQ(::bind(fd_, reinterpret_cast<sockaddr*>(&address), length), 0) << std::strerror(errno);
    const timeval limit{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }
  ~Listener() { ::close(fd_); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  std::string receive(int flags = 0) {
    char buffer[512];
    const ssize_t size = ::recv(fd_, buffer, sizeof(buffer), flags);
    return size < 0 ? "" : std::string(buffer, static_cast<size_t>(size));
  }

 private:
  int fd_;
};

TEST(ServiceNotify, SendsToPathsAndAbstractNames) {
  const TempDir dir;
  for (const std::string& name :
       {(dir.path() / "notify").string(), "@hadal-notify-test-" + std::to_string(::getpid())}) {
    Listener listener(name);
    const ServiceNotifier notifier(name);
    EXPECT_TRUE(notifier.enabled());
    notifier.send("READY=1\nSTATUS=serving");
    EXPECT_EQ(listener.receive(), "READY=1\nSTATUS=serving") << name;
  }
}

TEST(ServiceNotify, SilentWithoutAUsableSocket) {
  for (const std::string& name : {std::string(), std::string("relative"), "/" + std::string(200, 'x')}) {
    ServiceNotifier notifier(name);
    EXPECT_FALSE(notifier.enabled()) << name;
    notifier.send("READY=1");
    notifier.start_watchdog(std::chrono::milliseconds(1), [] { return true; });
  }
  const ServiceNotifier nobody_listens("/nowhere/notify");
  nobody_listens.send("READY=1");
}

TEST(ServiceNotify, ReportsLoadingAtMostOnceASecond) {
  const std::string name = "@hadal-loading-test-" + std::to_string(::getpid());
  Listener listener(name);
  ServiceNotifier notifier(name);
  notifier.report_loading(0.25, std::chrono::seconds(60));
  EXPECT_EQ(listener.receive(), "STATUS=loading, 25 %\nEXTEND_TIMEOUT_USEC=60000000");
  notifier.report_loading(0.26, std::chrono::seconds(60));
  EXPECT_EQ(listener.receive(MSG_DONTWAIT), "");
}

TEST(ServiceNotify, WatchdogIsFedOnlyWhileAlive) {
  const std::string name = "@hadal-watchdog-test-" + std::to_string(::getpid());
  Listener listener(name);
  ServiceNotifier notifier(name);
  std::atomic<int> num_asked{0};
  std::atomic<bool> alive{true};
  notifier.start_watchdog(std::chrono::milliseconds(2), [&] {
    ++num_asked;
    return alive.load();
  });
  for (int i = 0; i < 3; ++i) EXPECT_EQ(listener.receive(), "WATCHDOG=1");
  alive = false;
  const int asked_before = num_asked;
  while (num_asked < asked_before + 2) std::this_thread::yield();  // the last sign of life has been sent
  while (!listener.receive(MSG_DONTWAIT).empty()) {
  }
  const int asked = num_asked;
  while (num_asked < asked + 3) std::this_thread::yield();
  EXPECT_EQ(listener.receive(MSG_DONTWAIT), "");
}

TEST(ServiceNotify, WatchdogPeriodOfTheEnvironment) {
  const std::string pid = std::to_string(::getpid());
  EXPECT_EQ(watchdog_period("200000", nullptr), std::chrono::microseconds(200'000));
  EXPECT_EQ(watchdog_period("200000", pid.c_str()), std::chrono::microseconds(200'000));
  EXPECT_EQ(watchdog_period("200000", "1"), std::nullopt);
  for (const char* wrong : {"", "0", "-5", "12x", "99999999999999999999"}) {
    EXPECT_EQ(watchdog_period(wrong, nullptr), std::nullopt) << wrong;
  }
  EXPECT_EQ(watchdog_period(nullptr, nullptr), std::nullopt);
}

}  // namespace
}  // namespace hadal
