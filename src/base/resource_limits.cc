#include "base/resource_limits.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

namespace hadal {
namespace {

namespace fs = std::filesystem;

// Kernel interface files are small and report size 0, so they are read as streams, not through File.
std::string read_small(const fs::path& path) {
  std::ifstream in(path);
  if (!in) return {};
  std::string text(64 << 10, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

std::optional<int64_t> parse_integer(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;  // "max"
  return value;
}

std::optional<int64_t> read_integer(const fs::path& path) { return parse_integer(read_small(path)); }

// The number behind "key" at the start of a line: memory.stat, meminfo, status.
std::optional<uint64_t> field_of(const std::string& text, std::string_view key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(key)) continue;
    std::string_view rest = std::string_view(line).substr(key.size());
    rest.remove_prefix(std::min(rest.find_first_not_of(": \t"), rest.size()));
    if (const auto value = parse_integer(rest); value && *value >= 0) return static_cast<uint64_t>(*value);
  }
  return std::nullopt;
}

template <typename T>
void take_least(std::optional<T>& least, std::optional<T> value) {
  if (value && (!least || *value < *least)) least = value;
}

struct MemoryFiles {
  const char* limit;
  const char* usage;
  const char* reclaimable;  // key in memory.stat
};
constexpr MemoryFiles kMemoryV1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr MemoryFiles kMemoryV2 = {"memory.max", "memory.current", "inactive_file"};

void read_memory(const fs::path& dir, const MemoryFiles& files, CgroupLimits& limits) {
  // v1 writes "no limit" as a number near 2^63.
  constexpr int64_t kNoLimit = int64_t{1} << 60;
  const auto limit = read_integer(dir / files.limit);
  if (!limit || *limit < 0 || *limit >= kNoLimit) return;
  const uint64_t bytes = static_cast<uint64_t>(*limit);
  take_least<uint64_t>(limits.memory_bytes, bytes);
  const auto usage = read_integer(dir / files.usage);
  if (!usage || *usage < 0) return;
  const uint64_t reclaimable = field_of(read_small(dir / "memory.stat"), files.reclaimable).value_or(0);
  const uint64_t held = static_cast<uint64_t>(*usage) - std::min(static_cast<uint64_t>(*usage), reclaimable);
  take_least<uint64_t>(limits.memory_available_bytes, bytes - std::min(bytes, held));
}

void read_cpu_v2(const fs::path& dir, CgroupLimits& limits) {
  std::istringstream text(read_small(dir / "cpu.max"));
  std::string quota;
  double period = 0;
  if (!(text >> quota >> period) || period <= 0) return;
  if (const auto value = parse_integer(quota); value && *value > 0) {
    take_least<double>(limits.cpus, static_cast<double>(*value) / period);
  }
}

void read_cpu_v1(const fs::path& dir, CgroupLimits& limits) {
  const auto quota = read_integer(dir / "cpu.cfs_quota_us");
  const auto period = read_integer(dir / "cpu.cfs_period_us");
  if (quota && period && *quota > 0 && *period > 0) {
    take_least<double>(limits.cpus, static_cast<double>(*quota) / static_cast<double>(*period));
  }
}

// Calls visit(dir) for mount/group and every ancestor down to mount. Inside a container the group may be named as the
// host sees it and not exist below the mount; the mount itself then holds the container's limits.
template <typename Visit>
void for_each_ancestor(const fs::path& mount, std::string_view group, Visit visit) {
  fs::path relative = fs::path(group).relative_path().lexically_normal();
  if (relative == "." || (!relative.empty() && *relative.begin() == "..")) relative.clear();
  for (; !relative.empty(); relative = relative.parent_path()) visit(mount / relative);
  visit(mount);
}

bool has_controller(std::string_view controllers, std::string_view name) {
  while (!controllers.empty()) {
    const size_t comma = std::min(controllers.find(','), controllers.size());
    if (controllers.substr(0, comma) == name) return true;
    controllers.remove_prefix(std::min(comma + 1, controllers.size()));
  }
  return false;
}

}  // namespace

CgroupLimits read_cgroup_limits(const fs::path& root) {
  const fs::path mount = root / "sys/fs/cgroup";
  CgroupLimits limits;
  std::istringstream lines(read_small(root / "proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    // "id:controllers:/group"; v2 has no controllers.
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    const std::string_view group = std::string_view(line).substr(second + 1);
    if (controllers.empty()) {
      for_each_ancestor(mount, group, [&](const fs::path& dir) {
        read_cpu_v2(dir, limits);
        read_memory(dir, kMemoryV2, limits);
      });
    }
    if (has_controller(controllers, "cpu")) {
      for_each_ancestor(mount / "cpu", group, [&](const fs::path& dir) { read_cpu_v1(dir, limits); });
    }
    if (has_controller(controllers, "memory")) {
      for_each_ancestor(mount / "memory", group, [&](const fs::path& dir) { read_memory(dir, kMemoryV1, limits); });
    }
  }
  return limits;
}

std::optional<uint64_t> available_memory_bytes(const fs::path& root) {
  std::optional<uint64_t> available = read_cgroup_limits(root).memory_available_bytes;
  if (const auto kib = field_of(read_small(root / "proc/meminfo"), "MemAvailable")) {
    take_least<uint64_t>(available, *kib * 1024);
  }
  return available;
}

uint64_t resident_anonymous_bytes(const fs::path& root) {
  return field_of(read_small(root / "proc/self/status"), "RssAnon").value_or(0) * 1024;
}

}  // namespace hadal
