// hadal doctor: is this host prepared for serving?
#include <fmt/core.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/timex.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <vector>

#include "bench/disk_probe.h"
#include "cli/command.h"
#include "cli/doctor_checks.h"
#include "kernels/kernels.h"

namespace hadal {
namespace {

struct DoctorOptions {
  DoctorRequest request;
  bool json = false;
};
DoctorOptions g_options;

constexpr int kDiskSamples = 5;
constexpr int kDiskRequests = 8;  // in flight

std::optional<bool> clock_is_synchronised() {
  timex state{};
  const int answer = ::adjtimex(&state);
  if (answer < 0) return std::nullopt;
  return answer != TIME_ERROR && (state.status & STA_UNSYNC) == 0;
}

// As the server binds: any address, and a port that just closed is free.
bool port_is_free(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  const bool is_free = ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  ::close(fd);
  return is_free;
}

// Median of a few short reads.
Expected<double> disk_bytes_per_s(const std::filesystem::path& folder) {
  HADAL_ASSIGN_OR_RETURN(DiskProbe probe, DiskProbe::open(folder));
  std::vector<double> samples;
  for (int i = 0; i < kDiskSamples; ++i) {
    HADAL_ASSIGN_OR_RETURN(const double sample, probe.sample(kDiskRequests));
    samples.push_back(sample);
  }
  std::sort(samples.begin(), samples.end());
  return samples[samples.size() / 2];
}

DoctorHost this_host() {
  DoctorHost host;
  host.features = cpu_features();
  const auto kernels = select_kernels("auto");
  host.kernels = kernels ? (*kernels)->name : "none";
  host.clock_synchronised = clock_is_synchronised;
  host.port_is_free = port_is_free;
  host.disk_bytes_per_s = disk_bytes_per_s;
  return host;
}

int run_doctor() {
  const std::vector<Finding> findings = examine_host(this_host(), g_options.request);
  if (g_options.json) {
    fmt::print("{}\n", findings_json(findings).dump(2));
  } else {
    fmt::print("{}", findings_text(findings));
  }
  return worst_status(findings) >= FindingStatus::kWarning ? kExitFailed : kExitOk;
}

void add_doctor_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand("doctor", "Check whether this host is prepared for serving");
  command->add_option("--model", g_options.request.model, "Model folder to compare with memory and disk");
  command->add_option("--port", g_options.request.port, "Port that the server would listen on; 0: not checked")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command->add_flag("--json", g_options.json, "Findings as JSON");
  command->footer(
      "Each finding has a status, what was found, and behind '>' one line that changes it.\n"
      "Exit codes: 0 nothing to change (ok and note), 1 a warning or a fault, 2 wrong command line.");
}

}  // namespace

const Command kDoctorCommand = {add_doctor_command, "doctor", run_doctor};

}  // namespace hadal
