// A rank other than 0: meets rank 0, loads its part, and runs what it is sent, from group to group.
#pragma once

#include <chrono>
#include <string>

#include "base/status.h"
#include "cli/rank_contract.h"
#include "cli/rank_keys.h"

namespace hadal {

struct RankWorkerOptions {
  RankIdentity identity;
  std::string version;
  std::string model;    // empty: the path that rank 0 says
  int num_threads = 0;  // 0: what rank 0 says
  std::chrono::milliseconds join_timeout{600'000};
};

// Until rank 0 says stop: true. False: rank 0 is gone, another may come. Errors: this rank cannot take part, or
// kUnavailable: nobody came within join_timeout. Binds the calling thread, and those it starts, to the rank's cores.
Expected<bool> run_rank_worker(const RankWorkerOptions& options);

// Of this process, for the table of ranks.
RankReport own_rank_report(int num_threads);

// The cores of the local rank's share: consecutive ones, disjoint between ranks while there are enough. Binds the
// calling thread to them. Returns how many threads they are for. `num_threads`: of all ranks here together.
int bind_to_share(int local_rank, int local_world_size, int num_threads);

}  // namespace hadal
