// The course of `hadal comm check` on one node: meet, compare, measure every pair in turn, and conclude the same
// everywhere.
#pragma once

#include <chrono>
#include <string>

#include "cli/comm_check.h"
#include "cli/comm_check_probe.h"

namespace hadal {

struct CommCheckOptions {
  int nnodes = 1, node_rank = 0;
  std::string master_addr;
  int master_port = 29500;
  std::string interface_name;  // name or own address; empty: the one that leads to master_addr
  std::string token;
  std::string model;   // a folder whose fingerprint must agree; empty: not compared
  int probe_port = 0;  // where this node is measured; 0: the system chooses
  CheckThresholds thresholds;
  ProbeLimits limits;
  std::chrono::milliseconds join_timeout{30'000};  // for the other nodes to come
};

// Takes at most the time for all nodes to come, then about half a second for each pair, and 30 s for what hangs. Faults
// are in the report; an error is a fault of the call itself (kInvalidArgument) or of the model folder.
Expected<CheckReport> run_comm_check(const CommCheckOptions& options);

}  // namespace hadal
