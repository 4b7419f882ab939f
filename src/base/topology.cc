#include "base/topology.h"

#include <hwloc.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/resource_limits.h"

namespace hadal {
namespace {

std::vector<int> affinity_cpus() {
  std::vector<int> cpus;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

struct DestroyTopology {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using TopologyHandle = std::unique_ptr<hwloc_topology, DestroyTopology>;

TopologyHandle load_hwloc() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return nullptr;
  TopologyHandle handle(raw);
  if (hwloc_topology_load(raw) != 0) return nullptr;
  return handle;
}

std::vector<int> cpus_within(const std::vector<int>& cpus, hwloc_const_cpuset_t set) {
  std::vector<int> inside;
  for (const int cpu : cpus) {
    if (set != nullptr && hwloc_bitmap_isset(set, static_cast<unsigned>(cpu))) inside.push_back(cpu);
  }
  return inside;
}

}  // namespace

CpuTopology detect_topology() {
  CpuTopology result;
  result.cpus = affinity_cpus();
  const TopologyHandle handle = load_hwloc();
  if (handle != nullptr) {
    for (hwloc_obj_t core = nullptr;
         (core = hwloc_get_next_obj_by_type(handle.get(), HWLOC_OBJ_CORE, core)) != nullptr;) {
      const std::vector<int> inside = cpus_within(result.cpus, core->cpuset);
      if (!inside.empty()) result.cores.push_back(inside.front());
    }
    for (hwloc_obj_t node = nullptr;
         (node = hwloc_get_next_obj_by_type(handle.get(), HWLOC_OBJ_NUMANODE, node)) != nullptr;) {
      std::vector<int> inside = cpus_within(result.cpus, node->cpuset);
      if (!inside.empty()) {
        result.nodes.push_back(
            {static_cast<int>(node->os_index), node->attr->numanode.local_memory, std::move(inside)});
      }
    }
  }
  if (result.cores.empty()) result.cores = result.cpus;
  if (result.nodes.empty()) result.nodes.push_back({0, 0, result.cpus});
  return result;
}

int default_num_threads(const CpuTopology& topology) {
  double threads = static_cast<double>(topology.cores.size());
  if (const auto quota = read_cgroup_limits().cpus) threads = std::min(threads, std::ceil(*quota));
  return std::max(1, static_cast<int>(threads));
}

int default_num_threads() { return default_num_threads(detect_topology()); }

}  // namespace hadal
