// What a start by MPI, Slurm or a LeaderWorkerSet means for the options about ranks.
#pragma once

#include "base/status.h"
#include "cli/config_sources.h"
#include "cli/rank_options.h"

namespace hadal {

// Where `environment` or the flags tell that others were started too (launch_sources.h): one per node becomes nnodes,
// node_rank, master_addr and master_port of `options`; one per rank becomes the contract (rank_contract.h) in this
// process's own environment. A tensor_parallel_size that nobody set becomes the number of processes, or of ranks in a
// contract that is there already. Nothing else changes with such a contract, or with Ray as backend, which places ranks
// itself. Processes of an MPI launcher are asked to end (SIGTERM) when it is killed. Before other threads start. Logs
// what it found. Errors: kInvalidArgument naming variable or flag, value, what to do.
Status adopt_launcher(const OptionRegistry& registry, const Environment& environment, RankOptions& options);

}  // namespace hadal
