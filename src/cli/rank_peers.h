// The ranks other than 0, as far as rank 0's process knows them: who starts each, whether it runs, what it has
// reported, how it ended. Starts processes on its own node and agents on others when it is told to; when and whether is
// for others to decide (rank_head.h).
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/launch_nodes.h"
#include "cli/rank_keys.h"
#include "cli/rank_processes.h"
#include "comm/rank_group.h"

namespace hadal {

struct RankPeersOptions {
  std::shared_ptr<LaunchedNodes> launcher;  // of the other nodes' agents; null: they are started by somebody else
  std::vector<int> ranks_per_node;
  // Whether other ranks of this node are this process's children; false: each was started by a launcher.
  bool starts_local_ranks = true;
  std::chrono::milliseconds join_timeout{};  // what children are told
};

// Thread-safe. Ranks are 1 .. the last one.
class RankPeers {
 public:
  struct Ended {
    int rank;
    std::string how;
  };

  // `lost` gets words for people when a rank or a node has ended; on a thread of the processes or of the launcher, so
  // it must not block.
  RankPeers(RankPeersOptions options, std::function<void(const std::string&)> lost);
  ~RankPeers();  // ends all that it started

  // For the first time, all of which this process is to start. `place`: rank 0's identity, with the port and the token.
  Status start_all(const RankIdentity& place);
  // One of this node again, or with one of another node that node's agent. Errors: of the system or the launcher.
  Status start(int rank, int generation);
  // Those that are to be started again, one of each agent; what they reported is forgotten.
  std::vector<Ended> take_ended();
  void kill(int rank);  // of this node

  void forget_reports();
  // False: it was left by a process that has ended since.
  bool take_report(int rank, RankReport report);
  // All are in a group, with the processes that have reported.
  void note_group();
  // The first whose process is not the one of the last group.
  std::optional<int> first_replaced() const;
  // Whether it has kept its weights since a group and has therefore nothing to wait for; asked once per group.
  bool is_overdue(int rank);

  int world_size() const { return static_cast<int>(peers_.size()); }
  bool is_local(int rank) const { return peers_[static_cast<size_t>(rank)].is_local; }
  int node_of(int rank) const { return peers_[static_cast<size_t>(rank)].node_rank; }
  std::string describe(int rank) const;  // "rank 3 (node 1)"
  RankReport report(int rank) const;
  int last_pid(int rank) const;  // of its process in the last group, as it said itself
  std::vector<std::string> last_lines(int rank) const { return processes_.last_lines(rank); }

 private:
  struct Peer {
    int node_rank = 0;        // constant
    bool is_local = false;    // constant: a child of this process
    bool running = false;     // as far as this process would know
    std::string how_ended;    // of a local one, or of its node's agent
    bool has_joined = false;  // and kept its weights since
    RankReport report;
    std::string last_nonce;  // of its process in the last group
    int last_pid = 0;        // the same one's
  };

  bool is_launched(const Peer& peer) const { return peer.node_rank > 0 && options_.launcher != nullptr; }
  int first_rank(int node_rank) const;
  Status start_local(int rank, int generation);
  Status start_node(int node_rank, int generation);
  void local_exit(const RankExit& exit);
  void launch_event(const LaunchEvent& event);

  const RankPeersOptions options_;
  const std::function<void(const std::string&)> lost_;
  RankIdentity place_;  // set before anything is started
  mutable std::mutex mutex_;
  std::vector<Peer> peers_;  // by rank, 0 unused; under mutex_, except for what is constant
  RankProcesses processes_;  // last: its callback uses the rest
};

}  // namespace hadal
