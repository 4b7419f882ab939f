// Memory: pages, swap, overcommit, errors; and how it is spread over NUMA nodes.
#include <algorithm>
#include <set>

#include "base/resource_limits.h"
#include "cli/doctor_checks.h"
#include "cli/doctor_files.h"

namespace hadal {
namespace {

using enum FindingStatus;

double gigabytes(int64_t kibibytes) { return static_cast<double>(kibibytes) * 1024 / 1e9; }

Finding check_transparent_pages(const DoctorHost& host) {
  const auto enabled = read_line_file(host.root / "sys/kernel/mm/transparent_hugepage/enabled");
  const std::string word = selected_word(enabled.value_or(""));
  if (word == "always" || word == "madvise") return {"huge-pages", kOk, "transparent, " + word, ""};
  return {"huge-pages", kWarning, word.empty() ? "no transparent huge pages in this kernel" : "transparent, " + word,
          "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"};
}

Finding check_reserved_pages(const std::string& meminfo) {
  const int64_t free_pages = number_after(meminfo, "HugePages_Free").value_or(0);
  const int64_t page_kb = number_after(meminfo, "Hugepagesize").value_or(2048);
  if (free_pages <= 0) return {"huge-pages-reserved", kOk, "none", ""};
  return {"huge-pages-reserved", kWarning,
          fmt::format("{} free pages, {:.1f} GB: hadal takes transparent ones, so this memory lies idle", free_pages,
                      gigabytes(free_pages * page_kb)),
          "sysctl vm.nr_hugepages=0"};
}

Finding check_swap(const std::string& meminfo) {
  const int64_t total_kb = number_after(meminfo, "SwapTotal").value_or(0);
  const int64_t used_kb = total_kb - number_after(meminfo, "SwapFree").value_or(total_kb);
  if (total_kb == 0) return {"swap", kOk, "off", ""};
  if (used_kb > total_kb / 20) {
    return {"swap", kWarning, fmt::format("{:.1f} of {:.1f} GB in use", gigabytes(used_kb), gigabytes(total_kb)),
            "swapoff -a"};
  }
  return {"swap", kNote, fmt::format("{:.1f} GB, hardly used", gigabytes(total_kb)), ""};
}

Finding check_overcommit(const DoctorHost& host) {
  if (read_number(host.root / "proc/sys/vm/overcommit_memory") == 2) {
    return {"overcommit", kWarning, "2: large reservations fail although memory is free",
            "sysctl vm.overcommit_memory=0"};
  }
  return {"overcommit", kOk, "allowed", ""};
}

Finding check_errors(const DoctorHost& host) {
  int64_t corrected = 0;
  int64_t uncorrected = 0;
  const auto controllers = numbered_entries(host.root / "sys/devices/system/edac/mc", "mc");
  for (const auto& controller : controllers) {
    corrected += read_number(controller / "ce_count").value_or(0);
    uncorrected += read_number(controller / "ue_count").value_or(0);
  }
  const std::string found = fmt::format("{} corrected and {} uncorrected errors", corrected, uncorrected);
  if (uncorrected > 0)
    return {"memory-errors", kFault, found, "replace the module: edac-util -v or rasdaemon names it"};
  if (corrected > 0) return {"memory-errors", kWarning, found, "watch it: edac-util -v or rasdaemon names the module"};
  return {"memory-errors", controllers.empty() ? kNote : kOk, controllers.empty() ? "not counted here" : "none", ""};
}

Finding check_memory_limit(const DoctorHost& host, const std::string& meminfo) {
  const auto limit = read_cgroup_limits(host.root).memory_bytes;
  const double total = gigabytes(number_after(meminfo, "MemTotal").value_or(0));
  if (!limit || static_cast<double>(*limit) / 1e9 >= total) {
    return {"memory-limit", kOk, fmt::format("no limit below the {:.1f} GB", total), ""};
  }
  return {"memory-limit", kNote,
          fmt::format("{:.1f} of {:.1f} GB by the control group", static_cast<double>(*limit) / 1e9, total),
          "docker --memory; Kubernetes: resources.limits.memory; systemd: MemoryMax="};
}

struct NodeFacts {
  bool has_cpus = false;
  int64_t memory_kb = 0;
};

std::vector<NodeFacts> read_nodes(const DoctorHost& host) {
  std::vector<NodeFacts> nodes;
  for (const auto& path : numbered_entries(host.root / "sys/devices/system/node", "node")) {
    const std::string meminfo = read_line_file(path / "meminfo").value_or("");
    NodeFacts node;
    node.has_cpus = !read_line_file(path / "cpulist").value_or("").empty();
    const size_t total = meminfo.find("MemTotal:");  // "Node 0 MemTotal:  65 kB"
    if (total != std::string::npos) {
      node.memory_kb = number_after(std::string_view(meminfo).substr(total), "MemTotal").value_or(0);
    }
    nodes.push_back(node);
  }
  return nodes;
}

size_t count_packages(const DoctorHost& host) {
  std::set<int64_t> packages;
  for (const auto& cpu : numbered_entries(host.root / "sys/devices/system/cpu", "cpu")) {
    if (const auto id = read_number(cpu / "topology/physical_package_id")) packages.insert(*id);
  }
  return std::max<size_t>(1, packages.size());
}

Finding check_nodes(const DoctorHost& host, const std::vector<NodeFacts>& nodes) {
  int64_t least = INT64_MAX;
  int64_t most = 0;
  size_t num_with_cpus = 0;
  for (const NodeFacts& node : nodes) {
    if (!node.has_cpus) continue;
    ++num_with_cpus;
    least = std::min(least, node.memory_kb);
    most = std::max(most, node.memory_kb);
  }
  if (num_with_cpus <= 1) return {"numa-nodes", kOk, "1 node with processors", ""};
  const size_t packages = count_packages(host);
  std::string found = fmt::format("{} nodes on {} sockets", num_with_cpus, packages);
  if (least == 0)
    return {"numa-nodes", kWarning, found + "; a node has no memory", "fill the memory slots of every socket"};
  if (most > least + least / 5) {
    return {"numa-nodes", kWarning,
            fmt::format("{}; {:.0f} to {:.0f} GB a node", found, gigabytes(least), gigabytes(most)),
            "fill the memory slots of every socket alike"};
  }
  if (num_with_cpus > packages) {
    return {"numa-nodes", kNote, found + ": sub-NUMA clustering (SNC, NPS) is on", ""};
  }
  return {"numa-nodes", kOk, found, ""};
}

}  // namespace

void examine_numa(const DoctorHost& host, std::vector<Finding>& findings) {
  const std::vector<NodeFacts> nodes = read_nodes(host);
  findings.push_back(check_nodes(host, nodes));
  if (nodes.size() > 1 && read_number(host.root / "proc/sys/kernel/numa_balancing").value_or(0) != 0) {
    findings.push_back({"numa-balancing", kWarning, "on: the kernel unmaps weights to watch who reads them",
                        "sysctl kernel.numa_balancing=0"});
  } else {
    findings.push_back({"numa-balancing", kOk, "off, or one node", ""});
  }
  if (read_number(host.root / "proc/sys/vm/zone_reclaim_mode").value_or(0) != 0) {
    findings.push_back({"zone-reclaim", kWarning, "on: caches are dropped although other nodes have memory",
                        "sysctl vm.zone_reclaim_mode=0"});
  } else {
    findings.push_back({"zone-reclaim", kOk, "off", ""});
  }
}

void examine_memory(const DoctorHost& host, std::vector<Finding>& findings) {
  const std::string meminfo = read_line_file(host.root / "proc/meminfo").value_or("");
  findings.push_back(check_transparent_pages(host));
  findings.push_back(check_reserved_pages(meminfo));
  findings.push_back(check_memory_limit(host, meminfo));
  findings.push_back(check_swap(meminfo));
  findings.push_back(check_overcommit(host));
  findings.push_back(check_errors(host));
}

}  // namespace hadal
