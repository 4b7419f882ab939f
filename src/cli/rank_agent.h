// The agent of a node that does not have rank 0: starts the ranks of its node, starts lost ones again, and ends with
// rank 0.
#pragma once

#include "base/status.h"
#include "cli/rank_contract.h"
#include "cli/rank_options.h"
#include "cli/rank_worker.h"

namespace hadal {

inline constexpr int kExitRankZeroGone = 3;  // of a rank whose rank 0 ended without a word

// Of a node by its flags: its ranks follow those of the nodes before it. Errors: kInvalidArgument for a token that is
// needed and missing.
Expected<RankContract> node_contract(const RankOptions& options);

// options.identity: of the node's first rank. Runs until rank 0 says stop, a rank cannot take part, or nobody came
// within join_timeout; SIGTERM and SIGINT end it at once. Returns an exit code. Errors: kIo.
Expected<int> run_rank_agent(const RankWorkerOptions& options);

// From now on SIGTERM and SIGINT end the process, and with it its children. A whole group is asked to end at once
// (pods, Slurm's tasks): after SIGTERM rank 0 gets the time to answer what runs, and a second signal ends at once.
// Before other threads start.
void end_after_rank_zero();

}  // namespace hadal
