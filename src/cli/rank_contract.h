// What a launcher tells a process about its place, as environment, and nothing else: the HADAL_* names of
// comm/rank_group.h. Other launchers' variables are turned into them first (launch_environment.h).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "cli/config_sources.h"
#include "comm/rank_group.h"

namespace hadal {

struct RankContract {
  RankIdentity identity;
  // This process is the agent of its node: `identity.rank` is the first of local_world_size ranks that it starts. So
  // where HADAL_LOCAL_RANK is not set.
  bool is_agent = false;
};

// Nothing when HADAL_RANK is not set. HADAL_WORLD_SIZE must be set beside it; with other processes for other ranks,
// HADAL_AUTH_TOKEN and, between nodes, HADAL_MASTER_ADDR. Left out, a node has its even share of the ranks, and the
// port is kRankMasterPort where others must know it. Errors: kInvalidArgument naming the variable, its value and what
// it contradicts or lacks.
Expected<std::optional<RankContract>> read_rank_contract(const Environment& environment);

// The other way round: what the process with this contract must be given.
std::vector<std::pair<std::string, std::string>> rank_environment(const RankContract& contract);

}  // namespace hadal
