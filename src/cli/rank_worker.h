// A rank other than 0: meets rank 0, loads its part, and runs what it is sent, from group to group.
#pragma once

#include <chrono>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/rank_contract.h"
#include "cli/rank_keys.h"

namespace hadal {

struct RankWorkerOptions {
  RankIdentity identity;
  std::string version;  // program_build()
  std::string model;    // empty: the path that rank 0 says
  int num_threads = 0;  // 0: what rank 0 says
  std::chrono::milliseconds join_timeout{600'000};
};

// Until rank 0 says stop: true. False: rank 0 is gone, another may come. Errors: this rank cannot take part, or
// kUnavailable: nobody came within join_timeout. Binds the calling thread, and those it starts, to the rank's cores.
Expected<bool> run_rank_worker(const RankWorkerOptions& options);

// Of this process, for the table of ranks.
RankReport own_rank_report(int num_threads);

// The local rank's share of the cores that this process may run on: consecutive ones, disjoint between ranks while
// there are enough. Never empty.
std::vector<int> share_of_cores(int local_rank, int local_world_size);
// The calling thread and those that it starts from now on, child processes too.
void bind_to_cores(std::span<const int> cores);

}  // namespace hadal
