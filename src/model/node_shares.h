// How work and weights are cut over the NUMA nodes of a machine: every matrix by panels of output rows, attention by
// heads, so that each node reads only its own memory and the nodes exchange nothing but activations. A cut decides who
// computes an output, never how: bits do not depend on it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/topology.h"

namespace hadal {

struct NodeShares {
  int num_nodes = 1;
  std::vector<int> node_of_worker = {0};  // [num_threads], each in [0, num_nodes), every node has a worker

  std::vector<std::vector<int>> cpus_of_node;  // [num_nodes]; empty: workers are not pinned

  // Keeps the calling thread on the processors of `node`. Best effort; nothing with one node.
  void bind_current_thread(int node) const;
  int num_threads() const { return static_cast<int>(node_of_worker.size()); }
  // The share of `node` among num_units consecutive units is [begin(num_units, node), begin(num_units, node + 1)).
  int64_t begin(int64_t num_units, int node) const { return num_units * node / num_nodes; }
  int node_of(int64_t unit, int64_t num_units) const;
  int64_t num_workers_of(int node) const;
  int64_t rank_in_node(int worker_idx) const;  // workers of the same node before this one
};

// Workers that are not pinned (pin_cpus empty) may run anywhere: one node. Worker i runs on pin_cpus[i % size].
NodeShares make_node_shares(const CpuTopology& topology, const std::vector<int>& pin_cpus, int num_threads);

}  // namespace hadal
