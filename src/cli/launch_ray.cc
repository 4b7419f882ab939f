#include "cli/launch_ray.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>

#include "base/log.h"
#include "cli/launch_ray_lines.h"

namespace hadal {
namespace {

constexpr std::chrono::seconds kPrepareTimeout{300};
constexpr std::chrono::seconds kCloseTimeout{
    15};  // for the helper to end its agents; then it is killed, and they with it
constexpr size_t kMostWordBytes = 500;
constexpr size_t kLastWords = 8;  // lines of its stderr that are repeated when it ends unasked

std::string say_end(int status) {
  if (WIFSIGNALED(status)) return fmt::format("signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  return fmt::format("exit code {}", WEXITSTATUS(status));
}

// "hadal" without a folder is this program, at the same place on all nodes.
std::vector<std::string> with_own_path(std::vector<std::string> command) {
  std::error_code failed;
  const std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe", failed);
  if (!failed && !command.empty() && command.front() == "hadal") command.front() = own.string();
  return command;
}

// A process and our ends of its pipes, which the owner closes.
struct Child {
  pid_t pid = -1;
  int orders = -1;  // our ends: its stdin, a socket so that writing to a dead child is an error, not a signal
  int events = -1;  // its stdout
  int words = -1;   // its stderr
  int pidfd = -1;   // -1 on old kernels
};

void close_all(std::initializer_list<int> fds) {
  for (const int fd : fds) {
    if (fd >= 0) ::close(fd);
  }
}

Expected<Child> spawn(const std::vector<std::string>& command) {
  int orders[2] = {-1, -1};
  int events[2] = {-1, -1};
  int words[2] = {-1, -1};
  Child child;
  int failed = 0;
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, orders) != 0 || ::pipe2(events, O_CLOEXEC) != 0 ||
      ::pipe2(words, O_CLOEXEC) != 0) {
    failed = errno;
  } else {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, orders[1], 0);
    posix_spawn_file_actions_adddup2(&actions, events[1], 1);
    posix_spawn_file_actions_adddup2(&actions, words[1], 2);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    // A group of its own: Ctrl-C is for the server, which may still need its ranks. No signal is blocked in it.
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    std::vector<char*> arguments;
    for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    failed = ::posix_spawn(&child.pid, arguments[0], &actions, &attributes, arguments.data(), environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
  }
  close_all({orders[1], events[1], words[1]});
  if (failed != 0) {
    close_all({orders[0], events[0], words[0]});
    return make_error(ErrorCode::kIo, "{} cannot be started: {}", command.front(), std::strerror(failed));
  }
  const timeval patience{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(orders[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  child.orders = orders[0];
  child.events = events[0];
  child.words = words[0];
  child.pidfd = static_cast<int>(::syscall(SYS_pidfd_open, child.pid, 0));
  return child;
}

class RayLauncher : public Launcher {
 public:
  explicit RayLauncher(std::vector<std::string> helper) : helper_(std::move(helper)) {}
  ~RayLauncher() override;
  Expected<LaunchLayout> prepare(const LaunchRequest& request, LaunchListener listener) override;
  Status start(const LaunchUnit& unit) override;
  void kill(int node_rank) override;

 private:
  void follow();
  void hear(std::string_view bytes, bool are_events);
  void obey(RayEvent event);
  void conclude(const std::string& how);
  Status order(const std::string& line);
  void kill_helper();

  const std::vector<std::string> helper_;
  Child child_;              // set by prepare() before the thread starts
  LaunchListener listener_;  // likewise
  std::thread thread_;       // reads until the helper has ended

  RayLines event_lines_;  // of the thread, as the next four
  RayLines word_lines_;
  std::deque<std::string> last_words_;
  std::string broken_;  // what was wrong with the helper's lines
  int num_nodes_ = 0;

  std::mutex orders_mutex_;  // whole lines
  std::mutex mutex_;         // guards what follows
  std::condition_variable changed_;
  std::optional<Expected<LaunchLayout>> prepared_;
  std::optional<std::string> ended_;  // how; its process id may be another's from now on
  bool closing_ = false;
};

RayLauncher::~RayLauncher() {
  if (!thread_.joinable()) return;
  bool has_ended = false;
  {
    std::unique_lock lock(mutex_);
    closing_ = true;
    ::shutdown(child_.orders, SHUT_WR);  // the helper ends its agents and then itself
    has_ended = changed_.wait_for(lock, kCloseTimeout, [&] { return ended_.has_value(); });
  }
  if (!has_ended) kill_helper();
  thread_.join();
  close_all({child_.orders, child_.events, child_.words, child_.pidfd});
}

Expected<LaunchLayout> RayLauncher::prepare(const LaunchRequest& asked, LaunchListener listener) {
  LaunchRequest request = asked;
  request.command = with_own_path(std::move(request.command));
  HADAL_ASSIGN_OR_RETURN(child_, spawn(helper_));
  listener_ = std::move(listener);
  thread_ = std::thread([this] { follow(); });
  HADAL_RETURN_IF_ERROR(order(ray_prepare_line(request)));
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, kPrepareTimeout, [&] { return prepared_.has_value(); })) {
    return make_error(ErrorCode::kUnavailable, "Ray did not answer within {} s: see ray status",
                      kPrepareTimeout.count());
  }
  HADAL_ASSIGN_OR_RETURN(LaunchLayout layout, std::move(*prepared_));
  const int num_ranks = std::accumulate(layout.ranks_per_node.begin(), layout.ranks_per_node.end(), 0);
  if (num_ranks != request.world_size) {
    return make_error(ErrorCode::kInternal, "the Ray helper placed {} ranks, {} were asked for", num_ranks,
                      request.world_size);
  }
  if (!request.master_addr.empty()) layout.master_addr = request.master_addr;
  return layout;
}

Status RayLauncher::start(const LaunchUnit& asked) {
  LaunchUnit unit = asked;
  unit.command = with_own_path(std::move(unit.command));
  return order(ray_start_line(unit));
}

void RayLauncher::kill(int node_rank) { (void)order(ray_kill_line(node_rank)); }

Status RayLauncher::order(const std::string& line) {
  {
    const std::lock_guard lock(mutex_);
    if (ended_) return make_error(ErrorCode::kUnavailable, "{}", *ended_);
  }
  const std::lock_guard lock(orders_mutex_);
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t sent = ::send(child_.orders, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    // A dead helper is told of by conclude(), with its last words.
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) return {};
    if (sent < 0) {
      const int reason = errno;
      kill_helper();  // a line was cut in two: it cannot go on
      return make_error(ErrorCode::kUnavailable, "the Ray helper takes no orders: {}", std::strerror(reason));
    }
    rest.remove_prefix(static_cast<size_t>(sent));
  }
  return {};
}

void RayLauncher::kill_helper() {
  const std::lock_guard lock(mutex_);
  if (!ended_) ::kill(child_.pid, SIGKILL);
}

void RayLauncher::follow() {
  pollfd fds[] = {{child_.events, POLLIN, 0}, {child_.words, POLLIN, 0}, {child_.pidfd, POLLIN, 0}};
  bool has_ended = false;
  // Once it has ended, only what is left in the pipes is read: others may hold their ends.
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    const int num_ready = ::poll(fds, std::size(fds), has_ended ? 0 : -1);
    if (num_ready < 0 && errno == EINTR) continue;
    if (num_ready <= 0) break;
    for (size_t i = 0; i < 2; ++i) {
      if (fds[i].fd < 0 || fds[i].revents == 0) continue;
      char bytes[16 << 10];
      const ssize_t count = ::read(fds[i].fd, bytes, sizeof bytes);
      if (count < 0 && errno == EINTR) continue;
      if (count > 0) {
        hear({bytes, static_cast<size_t>(count)}, i == 0);
      } else {
        fds[i].fd = -1;
      }
    }
    if (fds[2].fd >= 0 && fds[2].revents != 0) {
      has_ended = true;
      fds[2].fd = -1;
    }
  }
  siginfo_t info{};
  while (::waitid(P_PID, static_cast<id_t>(child_.pid), &info, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
  }
  int status = 0;
  {
    const std::lock_guard lock(mutex_);
    ::waitpid(child_.pid, &status, 0);
    conclude(say_end(status));
  }
  changed_.notify_all();
}

void RayLauncher::hear(std::string_view bytes, bool are_events) {
  if (!broken_.empty()) return;
  auto lines = (are_events ? event_lines_ : word_lines_).take(bytes);
  if (!lines) {
    broken_ = lines.error().message;
    kill_helper();
    return;
  }
  for (const std::string& line : *lines) {
    if (!are_events) {
      log_debug("ray: {}", line);
      last_words_.push_back(line.substr(0, kMostWordBytes));
      if (last_words_.size() > kLastWords) last_words_.pop_front();
      continue;
    }
    auto event = parse_ray_event(line);
    if (event) {
      obey(*std::move(event));
      continue;
    }
    broken_ = event.error().message;
    kill_helper();
    return;
  }
}

void RayLauncher::obey(RayEvent event) {
  std::unique_lock lock(mutex_);
  switch (event.kind) {
    case RayEvent::Kind::kLayout:
      if (prepared_) break;
      num_nodes_ = static_cast<int>(event.layout.ranks_per_node.size());
      prepared_ = std::move(event.layout);
      break;
    case RayEvent::Kind::kError:
      if (prepared_) log_error("ray: {}", event.what);
      if (!prepared_) prepared_ = tl::unexpected<Error>(Error{event.code, std::move(event.what)});
      break;
    case RayEvent::Kind::kWarning:
      log_warning("ray: {}", event.what);
      break;
    case RayEvent::Kind::kNode:
      if (event.of_node.node_rank >= num_nodes_ || closing_) break;
      lock.unlock();
      listener_(event.of_node);
      break;
    case RayEvent::Kind::kOther:
      break;
  }
  changed_.notify_all();
}

// Under mutex_.
void RayLauncher::conclude(const std::string& how) {
  std::string why = fmt::format("the Ray helper ({}) ended with {}", helper_.front(), how);
  if (!broken_.empty()) why += ": " + broken_;
  for (const std::string& line : last_words_) why += "\n  " + line;
  if (!prepared_) prepared_ = make_error(ErrorCode::kUnavailable, "{}", why);
  ended_ = why;
  if (closing_) return;
  for (int node = 1; node < num_nodes_; ++node) listener_({LaunchEvent::Kind::kLost, node, why});
}

}  // namespace

std::unique_ptr<Launcher> make_ray_launcher(std::vector<std::string> helper) {
  return std::make_unique<RayLauncher>(std::move(helper));
}

Expected<std::unique_ptr<Launcher>> make_ray_launcher() {
  const char* path = std::getenv("PATH");
  HADAL_ASSIGN_OR_RETURN(std::string python, find_ray_interpreter(path == nullptr ? "" : path));
  return make_ray_launcher({std::move(python), "-u", "-c", std::string(kRayHelper)});
}

}  // namespace hadal
