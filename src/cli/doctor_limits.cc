// Limits of a process, the port, clocks, and whether containers can run.
#include <algorithm>

#include "cli/doctor_checks.h"
#include "cli/doctor_files.h"

namespace hadal {
namespace {

using enum FindingStatus;

constexpr int64_t kUnlimited = INT64_MAX;
constexpr int64_t kWantedFiles = 8192;  // 4,096 connections and what else is open

// Soft and hard limit in /proc/self/limits: "Max open files   1024   4096   files".
struct Limit {
  int64_t soft = kUnlimited;
  int64_t hard = kUnlimited;
};

int64_t limit_value(std::string_view word) {
  if (word.starts_with("unlimited")) return kUnlimited;
  return number_after(word, "").value_or(kUnlimited);
}

Limit read_limit(const std::string& limits, std::string_view name) {
  const size_t begin = limits.find(name);
  if (begin == std::string::npos) return {};
  std::string_view rest = std::string_view(limits).substr(begin + name.size());
  rest = rest.substr(0, rest.find('\n'));
  const auto next_word = [&rest] {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    const std::string_view word = rest.substr(0, rest.find(' '));
    rest.remove_prefix(word.size());
    return word;
  };
  Limit limit;
  limit.soft = limit_value(next_word());
  limit.hard = limit_value(next_word());
  return limit;
}

Finding check_locked_memory(const DoctorHost& host, const std::string& limits) {
  const Limit limit = read_limit(limits, "Max locked memory");
  if (limit.soft == kUnlimited) return {"memlock", kOk, "unlimited", ""};
  std::error_code ignored;
  const bool has_device = std::filesystem::exists(host.root / "sys/module/habanalabs", ignored) ||
                          std::filesystem::exists(host.root / "sys/class/infiniband", ignored);
  return {"memlock", has_device ? kWarning : kNote,
          fmt::format("{} KiB; {}", limit.soft / 1024,
                      has_device ? "Gaudi's and RDMA drivers lock host memory" : "nothing is locked on the CPU"),
          "ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; docker --ulimit memlock=-1"};
}

Finding check_files(const std::string& limits) {
  const Limit limit = read_limit(limits, "Max open files");
  if (limit.hard >= kWantedFiles) return {"open-files", kOk, fmt::format("{} possible", limit.hard), ""};
  return {"open-files", kWarning, fmt::format("at most {}: connections beyond are refused", limit.hard),
          "ulimit -Hn 65536; systemd: LimitNOFILE=65536; docker --ulimit nofile=65536"};
}

Finding check_processes(const DoctorHost& host, const std::string& limits) {
  const Limit limit = read_limit(limits, "Max processes");
  const int64_t wanted =
      static_cast<int64_t>(numbered_entries(host.root / "sys/devices/system/cpu", "cpu").size()) + 64;
  if (limit.soft >= wanted) return {"threads", kOk, fmt::format("{} needed at most", wanted), ""};
  return {"threads", kFault, fmt::format("{} allowed, {} needed: one per core and some", limit.soft, wanted),
          "ulimit -u 65536; systemd: TasksMax=infinity; docker --pids-limit=-1"};
}

Finding check_port(const DoctorHost& host, int port) {
  if (port == 0) return {"port", kOk, "not checked", ""};
  if (host.port_is_free(port)) return {"port", kOk, fmt::format("{} is free", port), ""};
  return {"port", kFault, fmt::format("{} is taken, or needs more rights", port),
          fmt::format("ss -ltnp 'sport = :{}' shows by whom; or hadal serve --port N", port)};
}

Finding check_clock(const DoctorHost& host) {
  const std::optional<bool> synchronised = host.clock_synchronised();
  if (!synchronised) return {"clock", kNote, "the system does not say whether it is synchronised", ""};
  if (*synchronised) return {"clock", kOk, "synchronised", ""};
  return {"clock", kWarning, "not synchronised: log lines of several machines do not match",
          "timedatectl set-ntp true"};
}

Finding check_clock_source(const DoctorHost& host) {
  const std::string source =
      read_line_file(host.root / "sys/devices/system/clocksource/clocksource0/current_clocksource").value_or("");
  for (const char* fast : {"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"}) {
    if (source == fast) return {"clock-source", kOk, source, ""};
  }
  if (source.empty()) return {"clock-source", kNote, "not visible", ""};
  return {"clock-source", kWarning, source + ": reading the time costs a system call",
          "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource; at boot: tsc=reliable"};
}

Finding check_containers(const DoctorHost& host) {
  std::string found;
  for (const char* program : {"docker", "podman", "nerdctl", "apptainer"}) {
    if (has_program(host.root, program)) found += (found.empty() ? "" : ", ") + std::string(program);
  }
  std::error_code ignored;
  const bool inside = std::filesystem::exists(host.root / ".dockerenv", ignored) ||
                      std::filesystem::exists(host.root / "run/.containerenv", ignored);
  if (inside) {
    return {"containers", kNote, "this is a container: sysctl and /sys lines are for its host", ""};
  }
  if (found.empty()) return {"containers", kNote, "no runtime; hadal needs none", "apt-get install podman"};
  std::error_code daemon_ignored;
  if (found == "docker" && !std::filesystem::exists(host.root / "run/docker.sock", daemon_ignored) &&
      !std::filesystem::exists(host.root / "var/run/docker.sock", daemon_ignored)) {
    return {"containers", kWarning, "docker is installed and its daemon does not run", "systemctl enable --now docker"};
  }
  return {"containers", kOk, found, ""};
}

}  // namespace

void examine_limits(const DoctorHost& host, const DoctorRequest& request, std::vector<Finding>& findings) {
  const std::string limits = read_line_file(host.root / "proc/self/limits").value_or("");
  findings.push_back(check_locked_memory(host, limits));
  findings.push_back(check_files(limits));
  findings.push_back(check_processes(host, limits));
  findings.push_back(check_port(host, request.port));
  findings.push_back(check_clock(host));
  findings.push_back(check_clock_source(host));
  findings.push_back(check_containers(host));
}

}  // namespace hadal
