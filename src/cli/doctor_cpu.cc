// Processors: instruction sets, clock rates, limits, other load.
#include <fmt/ranges.h>

#include <charconv>
#include <set>

#include "base/resource_limits.h"
#include "cli/doctor_checks.h"
#include "cli/doctor_files.h"

namespace hadal {
namespace {

using enum FindingStatus;

Finding check_isa(const DoctorHost& host) {
  const std::string found = fmt::format("{}; kernels {}", describe(host.features), host.kernels);
  if (!host.features.avx2 || !host.features.fma) {
    return {"isa", kWarning, "no AVX2: " + found,
            "use a processor with AVX2, better AVX-512 BF16; in a virtual machine "
            "pass the host's CPU through"};
  }
  if (!host.features.avx512_bf16) return {"isa", kNote, "no AVX-512 BF16: " + found, ""};
  return {"isa", kOk, found, ""};
}

Finding check_governor(const DoctorHost& host) {
  std::set<std::string> governors;
  for (const auto& cpu : numbered_entries(host.root / "sys/devices/system/cpu", "cpu")) {
    if (const auto governor = read_line_file(cpu / "cpufreq/scaling_governor")) governors.insert(*governor);
  }
  if (governors.empty()) return {"cpu-governor", kNote, "none visible: a virtual machine, or the firmware decides", ""};
  if (governors == std::set<std::string>{"performance"}) return {"cpu-governor", kOk, "performance", ""};
  return {"cpu-governor", kWarning, fmt::format("{}", fmt::join(governors, ", ")),
          "cpupower frequency-set -g performance"};
}

Finding check_turbo(const DoctorHost& host) {
  const auto base = host.root / "sys/devices/system/cpu";
  const auto no_turbo = read_number(base / "intel_pstate/no_turbo");
  const auto boost = read_number(base / "cpufreq/boost");
  if (no_turbo == 1) {
    return {"cpu-turbo", kWarning, "off", "echo 0 > /sys/devices/system/cpu/intel_pstate/no_turbo"};
  }
  if (boost == 0) return {"cpu-turbo", kWarning, "off", "echo 1 > /sys/devices/system/cpu/cpufreq/boost"};
  return {"cpu-turbo", no_turbo || boost ? kOk : kNote, no_turbo || boost ? "on" : "not visible", ""};
}

Finding check_thermal(const DoctorHost& host) {
  int64_t throttled = 0;
  bool visible = false;
  for (const auto& cpu : numbered_entries(host.root / "sys/devices/system/cpu", "cpu")) {
    const auto count = read_number(cpu / "thermal_throttle/package_throttle_count");
    visible |= count.has_value();
    throttled = std::max(throttled, count.value_or(0));
  }
  if (throttled > 0) {
    return {"cpu-thermal", kWarning, fmt::format("slowed down by heat {} times since the start", throttled),
            "check fans, air flow and power limits"};
  }
  return {"cpu-thermal", visible ? kOk : kNote, visible ? "never slowed down by heat" : "not visible", ""};
}

Finding check_quota(const DoctorHost& host, size_t num_cpus) {
  const CgroupLimits limits = read_cgroup_limits(host.root);
  if (!limits.cpus || *limits.cpus >= static_cast<double>(num_cpus)) {
    return {"cpu-limit", kOk, fmt::format("no limit below the {} processors", num_cpus), ""};
  }
  const bool whole = *limits.cpus == static_cast<double>(static_cast<int64_t>(*limits.cpus));
  const std::string found = fmt::format("{} of {} processors by the control group{}", *limits.cpus, num_cpus,
                                        whole ? "" : ": threads are stopped within each period");
  return {
      "cpu-limit", whole ? kNote : kWarning, found,
      "docker --cpuset-cpus in place of --cpus; Kubernetes: whole CPUs, requests equal to limits; systemd: CPUQuota="};
}

Finding check_load(const DoctorHost& host, size_t num_cpus) {
  const std::string text = read_line_file(host.root / "proc/loadavg").value_or("");
  double load = 0;
  std::from_chars(text.data(), text.data() + text.size(), load);
  const std::string found = fmt::format("{:.1f} threads ran in the last minute, of {} processors", load, num_cpus);
  if (load > 0.5 * static_cast<double>(num_cpus)) {
    return {"cpu-load", kWarning, found, "top -o %CPU shows who; every step waits for the slowest core"};
  }
  return {"cpu-load", kOk, found, ""};
}

}  // namespace

void examine_cpu(const DoctorHost& host, std::vector<Finding>& findings) {
  const size_t num_cpus = std::max<size_t>(1, numbered_entries(host.root / "sys/devices/system/cpu", "cpu").size());
  findings.push_back(check_isa(host));
  findings.push_back(check_governor(host));
  findings.push_back(check_turbo(host));
  findings.push_back(check_thermal(host));
  findings.push_back(check_quota(host, num_cpus));
  findings.push_back(check_load(host, num_cpus));
}

}  // namespace hadal
