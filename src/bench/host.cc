#include "bench/host.h"

#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string_view>

#include "base/cpu_features.h"
#include "base/topology.h"

namespace hadal {
namespace {

// The value of the first line "key<spaces>: value" or "key: value"; empty when there is none.
std::string proc_value(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

uint64_t status_kilobytes(std::string_view key) {
  return std::strtoull(proc_value("/proc/self/status", key).c_str(), nullptr, 10) * 1024;
}

std::string cpu_model_name() {
  const std::string name = proc_value("/proc/cpuinfo", "model name");
  return name.empty() ? "unknown" : name;
}

}  // namespace

HostFacts host_facts() {
  HostFacts facts;
  facts.cpu_model = cpu_model_name();
  facts.cpu_features = describe(cpu_features());
  const CpuTopology topology = detect_topology();
  facts.num_cpus = static_cast<int>(topology.cpus.size());
  facts.num_cores = static_cast<int>(topology.cores.size());
  facts.num_numa_nodes = static_cast<int>(topology.nodes.size());
  struct sysinfo memory {};
  if (sysinfo(&memory) == 0) facts.memory_bytes = static_cast<uint64_t>(memory.totalram) * memory.mem_unit;
  utsname name{};
  if (uname(&name) == 0) facts.kernel = std::string(name.sysname) + " " + name.release;
  return facts;
}

Json host_json(const HostFacts& facts) {
  return {
      {"cpu_model", facts.cpu_model}, {"cpu_features", facts.cpu_features},     {"num_cpus", facts.num_cpus},
      {"num_cores", facts.num_cores}, {"num_numa_nodes", facts.num_numa_nodes}, {"memory_bytes", facts.memory_bytes},
      {"kernel", facts.kernel}};
}

ProcessMemory process_memory() {
  return {.resident_bytes = status_kilobytes("VmRSS"), .peak_resident_bytes = status_kilobytes("VmHWM")};
}

double others_cpu_s() {
  std::ifstream file("/proc/stat");
  std::string cpu;
  double user = 0, nice = 0, system = 0, idle = 0, iowait = 0, irq = 0, softirq = 0;
  if (!(file >> cpu >> user >> nice >> system >> idle >> iowait >> irq >> softirq)) return 0;
  rusage own{};
  getrusage(RUSAGE_SELF, &own);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return (user + nice + system + irq + softirq) / static_cast<double>(sysconf(_SC_CLK_TCK)) - seconds(own.ru_utime) -
         seconds(own.ru_stime);
}

double process_age_s() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  // The command's name, field 2, is in parentheses and may hold spaces; the start time is field 22.
  size_t at = line.rfind(')');
  for (int field = 2; field < 22 && at != std::string::npos; ++field) at = line.find(' ', at + 1);
  timespec now{};
  if (at == std::string::npos || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
  const double started_s = std::strtod(line.c_str() + at, nullptr) / static_cast<double>(sysconf(_SC_CLK_TCK));
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) - started_s;
}

}  // namespace hadal
