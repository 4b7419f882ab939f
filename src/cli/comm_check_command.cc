// hadal comm check: started on every node, it says what is wrong between them, and what to do.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>

#include "cli/bench_common.h"
#include "cli/comm_check_run.h"
#include "cli/command.h"

namespace hadal {
namespace {

struct CommCheckFlags {
  CommCheckOptions check;
  double min_bandwidth = 0, timeout_seconds = 30;
  bool json = false;
};
CommCheckFlags g_flags;

int run_check_command() {
  CommCheckOptions& options = g_flags.check;
  const char* interface_name = std::getenv("HCCL_SOCKET_IFNAME");  // of the guide, as GLOO_SOCKET_IFNAME
  if (options.interface_name.empty() && interface_name != nullptr) options.interface_name = interface_name;
  options.thresholds.min_bandwidth = g_flags.min_bandwidth * 1e9;
  options.join_timeout = std::chrono::milliseconds(static_cast<int64_t>(g_flags.timeout_seconds * 1e3));
  const auto report = run_comm_check(options);
  if (!report) return report_bench_error(report.error());
  fmt::print("{}", g_flags.json ? check_json(*report).dump(2) + "\n" : check_text(*report));
  return report->faults.empty() ? kExitOk : kExitFailed;
}

void add_check_command(CLI::App& comm) {
  CommCheckOptions& options = g_flags.check;
  CLI::App* command = comm.add_subcommand("check", "Name what is wrong between the nodes, before a model is loaded");
  command->add_option("--nnodes", options.nnodes, "Nodes")->required();
  command->add_option("--node-rank", options.node_rank, "Number of this node, from 0")->required();
  command->add_option("--master-addr", options.master_addr, "Address of node 0")->required();
  command->add_option("--master-port", options.master_port, "Port on node 0, free there")->capture_default_str();
  command->add_option("--interface", options.interface_name, "Name or own address; default: what leads to node 0")
      ->envname("GLOO_SOCKET_IFNAME");
  command->add_option("--token", options.token, "Secret that all nodes are given")->envname("HADAL_AUTH_TOKEN");
  command->add_option("--model", options.model, "Model folder that must be the same on all nodes");
  command->add_option("--probe-port", options.probe_port, "Where this node is measured; 0: the system chooses")
      ->capture_default_str();
  command->add_option("--min-bandwidth", g_flags.min_bandwidth, "GB/s that every pair must have; 0: any")
      ->capture_default_str();
  command
      ->add_option("--max-latency", options.thresholds.max_latency_us, "Microseconds that no pair may exceed; 0: any")
      ->capture_default_str();
  command->add_option("--max-clock-difference", options.thresholds.max_clock_seconds, "Seconds between two clocks")
      ->capture_default_str();
  command->add_option("--timeout", g_flags.timeout_seconds, "Seconds for the other nodes to come")
      ->capture_default_str()
      ->check(CLI::Range(1.0, 3600.0));
  command->add_flag("--json", g_flags.json, "Print the report as JSON");
  command->footer(
      "Start it on every node at about the same time; each prints the whole report.\n"
      "Example, on node 0 of 2 (10.0.0.1):\n"
      "  hadal comm check --nnodes 2 --node-rank 0 --master-addr 10.0.0.1 --model /data/DeepSeek-R1\n"
      "Exit codes: 0 pass, 1 a fault was found, 2 wrong command line.");
}

}  // namespace

const Command kCommCheckCommand = {add_check_command, "check", run_check_command};

}  // namespace hadal
