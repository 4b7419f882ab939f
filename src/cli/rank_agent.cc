#include "cli/rank_agent.h"

#include <fmt/ranges.h>

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "cli/command.h"
#include "cli/rank_keys.h"
#include "cli/rank_processes.h"
#include "comm/rendezvous.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

std::atomic<bool> g_asked_to_end{false};  // set once, by end_after_rank_zero()'s thread

constexpr timespec kEndTime{.tv_sec = 120, .tv_nsec = 0};
constexpr milliseconds kMeetingTime{1'000};  // to connect to rank 0, before looking at the ranks again
constexpr milliseconds kRestartPause{200};   // of a rank that ended, so that one that always does costs little

class RankAgent {
 public:
  explicit RankAgent(const RankWorkerOptions& options)
      : options_(options), processes_([this](const RankExit& exit) {
          const std::lock_guard lock(mutex_);
          exits_.push_back(exit);
          changed_.notify_all();
        }) {}

  Expected<int> run() {
    for (int i = 0; i < options_.identity.local_world_size; ++i) {
      HADAL_RETURN_IF_ERROR(start(options_.identity.rank + i, options_.identity.generation));
    }
    int num_stopped = 0;
    while (num_stopped < options_.identity.local_world_size) {
      const auto exit = next_exit();
      if (!exit) {
        obey_rank_zero();
        continue;
      }
      if (!exit->by_signal && exit->code == kExitOk) {
        ++num_stopped;
        continue;
      }
      log_error("rank {} (node {}) ended: {}", exit->rank, options_.identity.node_rank, exit->what);
      if (!exit->by_signal && exit->code != kExitRankZeroGone) return exit->code;
      tell(*exit);
      if (exit->code == kExitRankZeroGone && !exit->by_signal) {
        if (g_asked_to_end) return kExitOk;
        forget_rank_zero();
      }
      std::this_thread::sleep_for(kRestartPause);
      HADAL_RETURN_IF_ERROR(start(exit->rank, 0));
    }
    return kExitOk;
  }

 private:
  Status start(int rank, int generation);
  std::optional<RankExit> next_exit();
  void obey_rank_zero();
  void tell(const RankExit& exit);
  void forget_rank_zero() {
    store_.reset();
    num_ends_ = 0;
  }
  bool meet();

  const RankWorkerOptions options_;
  std::unique_ptr<KeyValueStore> store_;  // null: not met
  int num_ends_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<RankExit> exits_;  // under mutex_
  RankProcesses processes_;
};

Status RankAgent::start(int rank, int generation) {
  RankContract contract{.identity = options_.identity};
  contract.identity.rank = rank;
  contract.identity.local_rank = rank - options_.identity.rank;
  contract.identity.generation = generation;
  RankCommand command{.rank = rank,
                      .node_rank = options_.identity.node_rank,
                      .arguments = {"worker"},
                      .env = rank_environment(contract)};
  if (!options_.model.empty()) command.arguments.insert(command.arguments.end(), {"--model", options_.model});
  if (options_.num_threads > 0) {
    command.arguments.insert(command.arguments.end(), {"--threads", std::to_string(options_.num_threads)});
  }
  const double join_s = std::chrono::duration<double>(options_.join_timeout).count();
  command.arguments.insert(command.arguments.end(), {"--join-timeout", fmt::format("{}", join_s)});
  return processes_.start(command);
}

// Nothing when none ended for a while.
std::optional<RankExit> RankAgent::next_exit() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, milliseconds(200), [this] { return !exits_.empty(); });
  if (exits_.empty()) return std::nullopt;
  RankExit exit = std::move(exits_.front());
  exits_.pop_front();
  return exit;
}

bool RankAgent::meet() {
  if (store_ != nullptr) return true;
  const RankIdentity& identity = options_.identity;
  auto store = connect_rendezvous(
      {.address = identity.master_addr,
       .port = identity.master_port,
       .token = identity.token,
       .facts = {{"version", options_.version}, {"world size", std::to_string(identity.world_size)}}},
      identity.rank, kMeetingTime);
  if (store) store_ = std::move(*store);
  return store_ != nullptr;
}

// Ends ranks that rank 0 says do not answer.
void RankAgent::obey_rank_zero() {
  while (meet()) {
    const auto text = store_->get(end_key(options_.identity.node_rank, num_ends_), milliseconds(0));
    if (!text) {
      if (text.error().message.find("was not set") == std::string::npos) forget_rank_zero();
      return;
    }
    ++num_ends_;
    const auto end = parse_rank_to_end(*text);
    if (!end || end->pid == 0 || processes_.pid_of(end->rank) != end->pid) continue;
    log_warning("rank 0 says that rank {} (process {}) does not answer: it is ended", end->rank, end->pid);
    processes_.kill(end->rank);
  }
}

void RankAgent::tell(const RankExit& exit) {
  if (meet()) static_cast<void>(store_->set(ended_key(exit.rank), exit.what));
}

}  // namespace

Expected<RankContract> node_contract(const RankOptions& options) {
  RankContract contract{.identity = options.place, .is_agent = true};
  RankIdentity& identity = contract.identity;
  identity.world_size = options.world_size();
  identity.nnodes = options.nnodes;
  identity.node_rank = options.node_rank;
  identity.local_world_size = identity.world_size / options.nnodes;
  identity.rank = identity.local_world_size * options.node_rank;
  identity.master_addr = options.master_addr.empty() ? "127.0.0.1" : options.master_addr;
  const bool needs_port = options.master_port == 0 && options.nnodes > 1;
  identity.master_port = needs_port ? kRankMasterPort : static_cast<uint16_t>(options.master_port);
  identity.interface_name = options.interface_name;
  if (identity.local_world_size < 1) {
    return make_error(ErrorCode::kInvalidArgument, "--tensor-parallel-size {} on --nnodes {}: some nodes have no rank",
                      options.tensor_parallel_size, options.nnodes);
  }
  HADAL_ASSIGN_OR_RETURN(identity.token, read_rank_token(options.token_file));
  if (identity.token.empty() && options.nnodes > 1 && options.nodes == nullptr) {
    return make_error(ErrorCode::kInvalidArgument,
                      "ranks of different machines need a secret: set {} to the same value on every node, or give "
                      "--rank-token-file with a file of it (head -c 16 /dev/urandom | xxd -p > token)",
                      kTokenVariable);
  }
  return contract;
}

void end_after_rank_zero() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] {
    int signal_number = 0;
    sigwait(&signals, &signal_number);
    g_asked_to_end = true;
    if (signal_number == SIGTERM) {
      log_info("asked to end: rank 0 gets {} s to end first", kEndTime.tv_sec);
      sigtimedwait(&signals, nullptr, &kEndTime);
    }
    std::_Exit(128 + signal_number);
  }).detach();
}

Expected<int> run_rank_agent(const RankWorkerOptions& options) {
  end_after_rank_zero();
  log_info("node {}: ranks {} to {} of {}, rank 0 at {}:{}", options.identity.node_rank, options.identity.rank,
           options.identity.rank + options.identity.local_world_size - 1, options.identity.world_size,
           options.identity.master_addr, options.identity.master_port);
  return RankAgent(options).run();
}

}  // namespace hadal
