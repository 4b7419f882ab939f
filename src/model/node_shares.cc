#include "model/node_shares.h"

#include <sched.h>

#include <algorithm>

namespace hadal {

int NodeShares::node_of(int64_t unit, int64_t num_units) const {
  int node = 0;
  while (node + 1 < num_nodes && begin(num_units, node + 1) <= unit) ++node;
  return node;
}

int64_t NodeShares::num_workers_of(int node) const {
  return std::count(node_of_worker.begin(), node_of_worker.end(), node);
}

int64_t NodeShares::rank_in_node(int worker_idx) const {
  return std::count(node_of_worker.begin(), node_of_worker.begin() + worker_idx,
                    node_of_worker[static_cast<size_t>(worker_idx)]);
}

void NodeShares::bind_current_thread(int node) const {
  if (num_nodes == 1 || cpus_of_node.empty()) return;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const int cpu : cpus_of_node[static_cast<size_t>(node)]) {
    if (cpu < CPU_SETSIZE) CPU_SET(cpu, &mask);
  }
  sched_setaffinity(0, sizeof(mask), &mask);  // a cpuset may forbid it
}

NodeShares make_node_shares(const CpuTopology& topology, const std::vector<int>& pin_cpus, int num_threads) {
  NodeShares shares;
  shares.node_of_worker.assign(static_cast<size_t>(num_threads), 0);
  if (pin_cpus.empty()) return shares;
  std::vector<int> dense(topology.nodes.size(), -1);  // nodes that have a worker, in order of appearance
  shares.num_nodes = 0;
  for (size_t worker = 0; worker < shares.node_of_worker.size(); ++worker) {
    const int cpu = pin_cpus[worker % pin_cpus.size()];
    const auto holds = [cpu](const NumaNode& node) {
      return std::find(node.cpus.begin(), node.cpus.end(), cpu) != node.cpus.end();
    };
    const auto found = std::find_if(topology.nodes.begin(), topology.nodes.end(), holds);
    const auto idx = found == topology.nodes.end() ? size_t{0} : static_cast<size_t>(found - topology.nodes.begin());
    if (dense[idx] < 0) {
      dense[idx] = shares.num_nodes++;
      shares.cpus_of_node.push_back(topology.nodes[idx].cpus);
    }
    shares.node_of_worker[worker] = dense[idx];
  }
  return shares;
}

}  // namespace hadal
