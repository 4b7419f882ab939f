// The seam between a server that needs ranks and whoever starts them. The unit is a node's agent: `hadal worker`, which
// starts the ranks of its node, restarts those that end, and ends with rank 0. Only the contract of rank_contract.h
// reaches it, as environment; everything else it asks rank 0 for. Ranks of rank 0's own node need no launcher.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace hadal {

// What a launcher is asked for.
struct LaunchRequest {
  int world_size = 1;
  int nnodes = 0;                    // 0: as few as hold the ranks; a launcher that knows its nodes decides
  std::string master_addr;           // empty: the launcher's own idea of this node's address
  std::vector<std::string> command;  // of an agent: {"/path/to/hadal", "worker"}; the launcher may append to it
};

// Where ranks go: nodes ascend with their first rank, node 0 is the one of rank 0.
struct LaunchLayout {
  std::vector<int> ranks_per_node;
  std::string master_addr;  // as other nodes reach rank 0
};

// One agent. `env` holds the contract, the token with it, and is all that the agent needs; never log its values.
struct LaunchUnit {
  int node_rank = 0;
  int first_rank = 0;
  int num_ranks = 1;
  std::vector<std::string> command;
  std::vector<std::pair<std::string, std::string>> env;
};

struct LaunchEvent {
  enum class Kind {
    kStarted,  // what: "pid 4711 on 10.0.0.2"
    kLog,      // what: a line of the agent's stderr, without its end
    kExited,   // what: "exit code 1", "signal 9 (Killed)"; it may be started again
    kLost,     // what: why the node itself is gone; starting there again may fail
  };
  Kind kind = Kind::kLog;
  int node_rank = 0;
  std::string what;
};

// Called on a thread of the launcher; must not block or call the launcher.
using LaunchListener = std::function<void(const LaunchEvent&)>;

// Thread-safe. Its destructor ends all that it started.
class Launcher {
 public:
  virtual ~Launcher() = default;
  // Once, before start(). Errors: kUnavailable, kResourceExhausted (fewer nodes than needed), kInvalidArgument; all say
  // what to do.
  virtual Expected<LaunchLayout> prepare(const LaunchRequest& request, LaunchListener listener) = 0;
  // Starts the agent of a node, or starts it again when it has ended. Returns before it has done anything.
  virtual Status start(const LaunchUnit& unit) = 0;
  // Ends the agent of a node at once (SIGKILL) and with it its ranks; kExited follows. Nothing when it does not run.
  virtual void kill(int node_rank) = 0;
};

// "ray": a launcher for --distributed-executor-backend. Null for backends whose agents are started by somebody else
// ("mp" on one node, "mpi" and "external" on any). Errors: kUnsupported.
Expected<std::unique_ptr<Launcher>> make_launcher(const std::string& backend);

}  // namespace hadal
