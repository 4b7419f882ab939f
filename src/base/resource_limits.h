// What this process may use of the machine: the limits of its control groups (v1 and v2, every ancestor), and free
// memory. Read anew at each call; costs a few small files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace hadal {

struct CgroupLimits {
  std::optional<double> cpus;                      // quota / period
  std::optional<uint64_t> memory_bytes;            // the tightest limit
  std::optional<uint64_t> memory_available_bytes;  // least of limit - usage + reclaimable page cache, over ancestors
};

// `root` is "/" except in tests: reads root/proc/self/cgroup and root/sys/fs/cgroup. Unreadable files set no limit.
CgroupLimits read_cgroup_limits(const std::filesystem::path& root = "/");

// Bytes that can be allocated now without swapping or being killed: the least of MemAvailable and the cgroup's room.
// Nothing when the system does not say.
std::optional<uint64_t> available_memory_bytes(const std::filesystem::path& root = "/");

// Anonymous memory of this process that is in RAM.
uint64_t resident_anonymous_bytes(const std::filesystem::path& root = "/");

}  // namespace hadal
