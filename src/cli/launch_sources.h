// Which place among the others a process has, from whoever started it: flags, MPI, Slurm or a Kubernetes
// LeaderWorkerSet. For processes to which nobody gave the contract (rank_contract.h). Pure: nothing is connected or
// looked up.
//
// Sources of the names: srun(1), Open MPI's and Hydra's environment, sigs.k8s.io/lws leaderworkerset_types.go.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "cli/config_sources.h"
#include "cli/rank_options.h"
#include "comm/rank_group.h"

namespace hadal {

inline constexpr int kMostLaunchedRanks = 4096;  // a bound on foreign numbers, above every layout

// As the user wrote them; absent ones leave it to the launcher.
struct LaunchFlags {
  std::optional<int> nnodes;     // 1..
  std::optional<int> node_rank;  // 0 .. nnodes-1; absent with nnodes and no launcher: 0
  bool is_other_node = false;    // no server here: node 0 is another one, and node_rank has no default
  std::string master_addr;       // of node 0: name or IP
  std::optional<int> master_port;
};

// What one started process stands for.
enum class LaunchScope {
  kAlone,  // nobody else was started: this process makes all ranks
  kNode,   // one process per node was started: each makes the ranks of its node
  kRank,   // every rank was started: this process is one of them
};

struct LaunchPlace {
  LaunchScope scope = LaunchScope::kAlone;
  std::string source;  // for people: "Slurm", "flags"; empty when alone
  // The launcher is the parent of its processes and leaves them running when it is killed; nobody else ends them then.
  bool ends_with_parent = false;
  // kRank: complete. kNode: node_rank, nnodes, master; the ranks are those of the node's first one, and world_size and
  // local_world_size are 0 when the number of ranks was not known here (rank 0 says it later). kAlone: world_size is
  // the number of ranks asked for, master_port 0 when no flag names one.
  RankIdentity identity;
  std::vector<std::string> notes;  // to be logged: variables that were seen and do not count
};

// `num_ranks`: of the layout (--tensor-parallel-size); 0 when the caller does not know it, as on a worker node. An
// empty variable counts as absent. MPI wins over the Slurm job or the pod that it runs in.
// Errors: kInvalidArgument for a damaged number, an incomplete or contradicting source, a flag against a variable,
// ranks of one node that are not consecutive, a missing master address; each names variable, value and what to do.
Expected<LaunchPlace> read_launch_place(const Environment& environment, const LaunchFlags& flags, int num_ranks);

}  // namespace hadal
