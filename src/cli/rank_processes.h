// The ranks of this machine as child processes: started from this program's own file, watched, and gone when it is.
// Their stderr becomes log lines "[node0 rank1] ..", bounded, the last ones kept.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace hadal {

struct RankCommand {
  int rank = 0;
  int node_rank = 0;
  std::vector<std::string> arguments;                    // after the program's name: {"worker"}
  std::vector<std::pair<std::string, std::string>> env;  // wins over this process's own
};

// How a child ended.
struct RankExit {
  int rank = 0;
  bool by_signal = false;
  int code = 0;      // exit code or signal number
  std::string what;  // "signal 9 (Killed)", "exit code 1"
};

// Thread-safe. Owns one thread, which starts and reaps: a child dies with the thread that started it.
class RankProcesses {
 public:
  // `exited` is called on that thread; it must not block and may call start() and kill().
  explicit RankProcesses(std::function<void(const RankExit&)> exited);
  // Children that still run get 3 s to end by themselves, then SIGKILL.
  ~RankProcesses();

  // Starts a rank's process, or a new one once the last has ended. Errors: kIo from the system.
  Status start(const RankCommand& command);
  void kill(int rank);                                  // SIGKILL; nothing when it does not run
  int pid_of(int rank) const;                           // 0: it does not run
  std::vector<std::string> last_lines(int rank) const;  // at most 200

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// "signal 9 (Killed)" or "exit code 1" of a waitpid() status.
std::string describe_exit(int wait_status);

}  // namespace hadal
