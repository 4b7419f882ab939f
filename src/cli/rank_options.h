// Flags of `hadal serve` about ranks: how many, on which nodes, who starts them. vLLM's names where it has the thing.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "comm/rank_group.h"
#include "model/rank_slice.h"

namespace hadal {

class LaunchedNodes;
class OptionRegistry;

inline constexpr const char* kTokenVariable = "HADAL_AUTH_TOKEN";
inline constexpr uint16_t kRankMasterPort = 29501;  // vLLM's --master-port

struct RankOptions {
  int64_t tensor_parallel_size = 1;
  bool enable_expert_parallel = false;
  std::string backend = "mp";  // mp, ray, mpi, external
  int nnodes = 1;
  int node_rank = 0;        // 0 is the default of a node with the HTTP server only
  std::string master_addr;  // empty: this machine only
  int master_port = 0;      // 0: kRankMasterPort between nodes, any on one machine
  bool headless = false;    // no HTTP: a node other than that of rank 0
  std::string interface_name;
  std::string token_file;
  int64_t restart_limit = 3;
  std::chrono::milliseconds rank_timeout{10'000};
  std::chrono::milliseconds join_timeout{600'000};

  // Not flags: which rank this process is, and the nodes that the backend's launcher has chosen, if it has one.
  RankIdentity place;
  std::shared_ptr<LaunchedNodes> nodes;

  int world_size() const { return static_cast<int>(tensor_parallel_size); }
  // For joining a group, which takes milliseconds once all ranks are ready.
  std::chrono::milliseconds group_timeout() const {
    return std::max<std::chrono::milliseconds>(2 * rank_timeout, std::chrono::seconds(10));
  }
  bool is_ranked() const { return tensor_parallel_size > 1; }
  // Of this process.
  RankSlice slice() const { return {place.rank, world_size(), enable_expert_parallel}; }
};

// `restarts`: of a program that can start lost ranks again.
void add_rank_options(OptionRegistry& registry, RankOptions& options, bool restarts = true);

// Errors: kInvalidArgument naming the flag for values that cannot go together.
Status check_rank_options(const RankOptions& options);

// The group's token: the variable's, else the file's. Empty: neither is given. Errors: kInvalidArgument.
Expected<std::string> read_rank_token(const std::string& token_file);

}  // namespace hadal
