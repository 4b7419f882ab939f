#include "base/resource_limits.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/topology.h"
#include "support/test_files.h"

namespace hadal {
namespace {

// A made-up system root.
class FakeRoot {
 public:
  void write(const std::string& path, const std::string& text) {
    const auto full = dir_.path() / path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }
  const std::filesystem::path& path() const { return dir_.path(); }

 private:
  TempDir dir_;
};

TEST(CgroupLimits, Version2TakesTheTightestAncestor) {
  FakeRoot root;
  root.write("proc/self/cgroup", "0::/slice/unit\n");
  root.write("sys/fs/cgroup/slice/unit/cpu.max", "max 100000\n");
  root.write("sys/fs/cgroup/slice/cpu.max", "250000 100000\n");
  root.write("sys/fs/cgroup/slice/unit/memory.max", "8000\n");
  root.write("sys/fs/cgroup/slice/unit/memory.current", "1000\n");
  root.write("sys/fs/cgroup/slice/memory.max", "9000\n");
  root.write("sys/fs/cgroup/slice/memory.current", "7000\n");
  root.write("sys/fs/cgroup/slice/memory.stat", "anon 1\ninactive_file 500\n");
  const CgroupLimits limits = read_cgroup_limits(root.path());
  EXPECT_EQ(limits.cpus, 2.5);
  EXPECT_EQ(limits.memory_bytes, 8000u);
  EXPECT_EQ(limits.memory_available_bytes, 2500u);  // 9000 - (7000 - 500)
}

TEST(CgroupLimits, Version1) {
  FakeRoot root;
  root.write("proc/self/cgroup", "4:memory:/job\n2:cpu,cpuacct:/job\n0::/\n");
  root.write("sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "150000\n");
  root.write("sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n");
  root.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  root.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  root.write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "4096\n");
  root.write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "5000\n");
  root.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  const CgroupLimits limits = read_cgroup_limits(root.path());
  EXPECT_EQ(limits.cpus, 1.5);
  EXPECT_EQ(limits.memory_bytes, 4096u);
  EXPECT_EQ(limits.memory_available_bytes, 0u);
}

TEST(CgroupLimits, NothingReadableIsNoLimit) {
  FakeRoot root;
  EXPECT_FALSE(read_cgroup_limits(root.path()).cpus.has_value());
  EXPECT_FALSE(available_memory_bytes(root.path()).has_value());
  root.write("proc/self/cgroup", "nonsense\n0::/../../etc\n:::\n");
  root.write("proc/meminfo", "MemTotal: 10 kB\nMemAvailable:       3 kB\n");
  EXPECT_FALSE(read_cgroup_limits(root.path()).memory_bytes.has_value());
  EXPECT_EQ(available_memory_bytes(root.path()), 3072u);
}

TEST(Topology, DescribesThisProcess) {
  const CpuTopology topology = detect_topology();
  ASSERT_FALSE(topology.cpus.empty());
  ASSERT_FALSE(topology.nodes.empty());
  EXPECT_LE(topology.cores.size(), topology.cpus.size());
  size_t cpus_of_nodes = 0;
  for (const NumaNode& node : topology.nodes) cpus_of_nodes += node.cpus.size();
  EXPECT_EQ(cpus_of_nodes, topology.cpus.size());
  EXPECT_GE(default_num_threads(topology), 1);
  EXPECT_LE(default_num_threads(topology), static_cast<int>(topology.cpus.size()));
}

TEST(Topology, FollowsTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &before)) ++cpu;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(detect_topology().cpus, std::vector<int>{cpu});
  EXPECT_EQ(default_num_threads(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

}  // namespace
}  // namespace hadal
