#include "cli/rank_processes.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "base/log.h"

extern char** environ;

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kGrace{3};
constexpr size_t kKeptLines = 200;
constexpr size_t kMaxLineBytes = 4096;

// What exec takes; made before fork(), since little may be done between the two.
struct ExecImage {
  explicit ExecImage(const RankCommand& command) {
    arguments = {"hadal"};
    arguments.insert(arguments.end(), command.arguments.begin(), command.arguments.end());
    for (const auto& [name, value] : command.env) variables.push_back(name + "=" + value);
    for (char** variable = environ; *variable != nullptr; ++variable) {
      const std::string_view text = *variable;
      const std::string_view name = text.substr(0, text.find('='));
      bool replaced = false;
      for (const auto& [own, value] : command.env) replaced = replaced || own == name;
      if (!replaced) variables.emplace_back(text);
    }
    for (std::string& argument : arguments) argv.push_back(argument.data());
    for (std::string& variable : variables) envp.push_back(variable.data());
    argv.push_back(nullptr);
    envp.push_back(nullptr);
  }
  std::vector<std::string> arguments, variables;
  std::vector<char*> argv, envp;
};

// In the child, async-signal-safe calls only. Signals of a terminal or a service manager reach the parent too, which
// ends its ranks when their work is done.
[[noreturn]] void become(const ExecImage& image, int output, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGTERM, SIG_IGN);
  const int input = open("/dev/null", O_RDONLY | O_CLOEXEC);
  dup2(input, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  execve("/proc/self/exe", image.argv.data(), image.envp.data());
  _exit(127);
}

}  // namespace

std::string describe_exit(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return fmt::format("signal {} ({})", WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
  }
  return fmt::format("exit code {}", WEXITSTATUS(wait_status));
}

struct RankProcesses::Impl {
  struct Child {
    pid_t pid = 0;
    int pidfd = -1;
    int output = -1;
    std::string label;    // "[node0 rank1]"
    std::string partial;  // a line that has not ended
    std::deque<std::string> lines;
  };
  struct Start {
    RankCommand command;
    std::promise<Status> done;
  };

  void loop();
  void take_starts();
  Status spawn(const RankCommand& command);
  void read_output(Child& child);
  void add_line(Child& child, std::string line);
  void reap(int rank, Child& child);
  void wake() const {
    const uint64_t one = 1;
    static_cast<void>(!::write(wake_fd, &one, sizeof one));
  }
  // While stopping: whether nobody runs any more. Ends those that had their time.
  bool may_end();
  // Between looks whether they have ended, while stopping; else until something happens.
  int poll_ms() const {
    const std::lock_guard lock(mutex);
    return stopping ? 50 : -1;
  }

  std::function<void(const RankExit&)> exited;
  int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  mutable std::mutex mutex;
  std::map<int, Child> children;  // by rank
  std::deque<Start> starts;
  bool stopping = false;  // under the mutex
  Clock::time_point stop_by;
  std::thread thread;
};

// Requires the thread to be ours.
Status RankProcesses::Impl::spawn(const RankCommand& command) {
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return make_error(ErrorCode::kIo, "pipe: {}", std::strerror(errno));
  const ExecImage image(command);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) become(image, pipe_fds[1], parent);
  const int error = errno;
  close(pipe_fds[1]);
  if (pid < 0) {
    close(pipe_fds[0]);
    return make_error(ErrorCode::kIo, "rank {} cannot be started: {}", command.rank, std::strerror(error));
  }
  fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK);
  const std::lock_guard lock(mutex);
  Child& child = children[command.rank];
  child.pid = pid;
  child.pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  child.output = pipe_fds[0];
  child.label = fmt::format("[node{} rank{}]", command.node_rank, command.rank);
  return {};
}

void RankProcesses::Impl::take_starts() {
  for (;;) {
    Start next;
    {
      const std::lock_guard lock(mutex);
      if (starts.empty()) return;
      next = std::move(starts.front());
      starts.pop_front();
    }
    next.done.set_value(spawn(next.command));
  }
}

void RankProcesses::Impl::add_line(Child& child, std::string line) {
  {
    const std::lock_guard lock(mutex);
    child.lines.push_back(line);
    if (child.lines.size() > kKeptLines) child.lines.pop_front();
  }
  std::fprintf(stderr, "%s %s\n", child.label.c_str(), line.c_str());
}

void RankProcesses::Impl::read_output(Child& child) {
  char buffer[4096];
  for (;;) {
    const ssize_t got = ::read(child.output, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      if (got == 0) {
        close(child.output);
        child.output = -1;
      }
      return;
    }
    for (const char byte : std::string_view(buffer, static_cast<size_t>(got))) {
      if (byte != '\n' && byte != '\r') child.partial.push_back(byte);
      if (byte == '\n' || child.partial.size() >= kMaxLineBytes) {
        add_line(child, std::move(child.partial));
        child.partial.clear();
      }
    }
  }
}

void RankProcesses::Impl::reap(int rank, Child& child) {
  int wait_status = 0;
  if (waitpid(child.pid, &wait_status, WNOHANG) != child.pid) return;
  if (child.output >= 0) read_output(child);
  if (!child.partial.empty()) add_line(child, std::move(child.partial));
  child.partial.clear();
  {
    const std::lock_guard lock(mutex);
    if (child.output >= 0) close(child.output);
    if (child.pidfd >= 0) close(child.pidfd);
    child.pid = 0;
    child.output = child.pidfd = -1;
  }
  const bool by_signal = WIFSIGNALED(wait_status);
  exited({.rank = rank,
          .by_signal = by_signal,
          .code = by_signal ? WTERMSIG(wait_status) : WEXITSTATUS(wait_status),
          .what = describe_exit(wait_status)});
}

bool RankProcesses::Impl::may_end() {
  const std::lock_guard lock(mutex);
  if (!stopping) return false;
  bool some_run = false;
  for (auto& [rank, child] : children) {
    if (child.pid == 0) continue;
    some_run = true;
    if (Clock::now() >= stop_by) ::kill(child.pid, SIGKILL);
  }
  return !some_run;
}

void RankProcesses::Impl::loop() {
  std::vector<pollfd> entries;
  while (!may_end()) {
    take_starts();
    entries = {{.fd = wake_fd, .events = POLLIN, .revents = 0}};
    // Only this thread adds and changes children.
    for (const auto& [rank, child] : children) {
      entries.push_back({.fd = child.output, .events = POLLIN, .revents = 0});
      entries.push_back({.fd = child.pidfd, .events = POLLIN, .revents = 0});
    }
    poll(entries.data(), entries.size(), poll_ms());
    uint64_t ignored = 0;
    static_cast<void>(!::read(wake_fd, &ignored, sizeof ignored));
    size_t i = 1;
    for (auto& [rank, child] : children) {
      if (entries[i++].revents != 0) read_output(child);
      if (entries[i++].revents != 0) reap(rank, child);
    }
  }
}

RankProcesses::RankProcesses(std::function<void(const RankExit&)> exited) : impl_(std::make_unique<Impl>()) {
  impl_->exited = std::move(exited);
  impl_->thread = std::thread([impl = impl_.get()] { impl->loop(); });
}

RankProcesses::~RankProcesses() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
    impl_->stop_by = Clock::now() + kGrace;
  }
  impl_->wake();
  impl_->thread.join();
  close(impl_->wake_fd);
}

Status RankProcesses::start(const RankCommand& command) {
  if (std::this_thread::get_id() == impl_->thread.get_id()) return impl_->spawn(command);
  std::future<Status> done;
  {
    const std::lock_guard lock(impl_->mutex);
    if (impl_->stopping) return make_error(ErrorCode::kCancelled, "ranks are being stopped");
    done = impl_->starts.emplace_back(Impl::Start{command, {}}).done.get_future();
  }
  impl_->wake();
  return done.get();
}

void RankProcesses::kill(int rank) {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->children.find(rank);
  if (found != impl_->children.end() && found->second.pid != 0) ::kill(found->second.pid, SIGKILL);
}

int RankProcesses::pid_of(int rank) const {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->children.find(rank);
  return found == impl_->children.end() ? 0 : found->second.pid;
}

std::vector<std::string> RankProcesses::last_lines(int rank) const {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->children.find(rank);
  if (found == impl_->children.end()) return {};
  return {found->second.lines.begin(), found->second.lines.end()};
}

}  // namespace hadal
