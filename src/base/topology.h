// The processors and NUMA nodes this process may run on (hwloc), and how many threads to use by default.
#pragma once

#include <cstdint>
#include <vector>

namespace hadal {

struct NumaNode {
  int os_idx = 0;
  uint64_t memory_bytes = 0;
  std::vector<int> cpus;  // of this process, ascending operating-system indices
};

struct CpuTopology {
  std::vector<int> cpus;        // logical processors in the affinity mask, ascending
  std::vector<int> cores;       // one logical processor of each physical core in the mask
  std::vector<NumaNode> nodes;  // at least one; nodes without a processor in the mask are left out
};

// Respects the affinity mask (taskset, cpuset cgroups). Never fails: without hwloc's help it reports one node with the
// mask's processors. Costs milliseconds.
CpuTopology detect_topology();

// One thread per physical core of the mask, at most the cgroup's CPU quota rounded up, at least 1.
int default_num_threads(const CpuTopology& topology);
int default_num_threads();

}  // namespace hadal
