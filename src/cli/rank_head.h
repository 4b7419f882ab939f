// Rank 0's side of starting ranks: the rendezvous, the processes of its own node, and every later assembly.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/launch_nodes.h"
#include "cli/rank_keys.h"
#include "cli/rank_options.h"
#include "cli/rank_processes.h"
#include "comm/rendezvous.h"
#include "engine/ranked_model.h"

namespace hadal {

struct RankHeadOptions {
  RankOptions ranks;   // place: rank 0's identity, with the port and the token
  std::string config;  // write_rank_config()
  std::string model_hash;
  std::string version;
  std::shared_ptr<LaunchedNodes> launcher;  // of the other nodes' agents; null: they are started by somebody else
  std::vector<int> ranks_per_node;
  // Whether other ranks of this node are this process's children; false: each was started by a launcher.
  bool starts_local_ranks = true;
};

// Thread-safe where RankAssembly says so; assemble() on one thread at a time.
class RankHead final : public RankAssembly {
 public:
  // Listens and starts what is to be started; assemble() waits for it. Errors: kIo, those of the launcher.
  static Expected<std::shared_ptr<RankHead>> start(RankHeadOptions options);
  ~RankHead() override;

  Expected<AssembledRanks> assemble() override;
  std::string state() const override;
  void cancel() override;
  void disband() override;
  void on_loss(std::function<void(const std::string&)> lost) override;

  // Lines for people about the last assembly: a head, then one per rank.
  std::vector<std::string> table(const RankReport& own) const;
  // Why assemble() failed for good, with the last lines of the rank's log; empty: it has not.
  std::string fatal_reason() const;

 private:
  using Clock = std::chrono::steady_clock;
  // What is known of a rank other than 0.
  struct Peer {
    int node_rank = 0;
    bool is_local = false;    // a child of this process
    bool running = false;     // as far as this process would know
    std::string how_ended;    // of a local one, or of its node's agent
    bool has_joined = false;  // and kept its weights since
    RankReport report;
    std::string last_nonce;  // of its process in the last group
    int last_pid = 0;
  };

  explicit RankHead(RankHeadOptions options);
  Status listen();
  Status start_all();
  Status start_local(int rank);
  Status start_node(int node_rank);
  void local_exit(const RankExit& exit);
  void launch_event(const LaunchEvent& event);
  void lose(const std::string& what);

  Status begin_generation();
  Status wait_for_all();
  Status start_ended();
  Status take_reports(std::vector<int>& missing);
  Status replace_silent(const std::vector<int>& missing, Clock::time_point since);
  Expected<RankGroups> join();
  Status count_replaced();
  Status count_restart(int rank, const std::string& how);
  Error fail(int rank, const std::string& how, const std::string& then);
  Status check_cancelled() const;
  std::string describe(int rank) const;
  int first_rank(int node_rank) const;

  RankHeadOptions options_;
  std::unique_ptr<RendezvousServer> server_;
  std::unique_ptr<KeyValueStore> store_;
  int generation_ = -1;
  bool assembled_ = false;  // ever
  std::deque<Clock::time_point> restarts_;
  bool counted_ = false;         // a restart in this assembly
  std::map<int, int> num_ends_;  // by node: end_key numbers used

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Under mutex_.
  std::vector<Peer> peers_;  // by rank; 0 unused
  bool is_together_ = false;
  bool cancelled_ = false;
  std::string state_, fatal_, transport_;

  std::mutex lost_mutex_;  // before mutex_; held while it is called
  std::function<void(const std::string&)> lost_;

  std::unique_ptr<RankProcesses> processes_;  // last: its callback uses the rest
};

}  // namespace hadal
