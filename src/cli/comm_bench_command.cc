// hadal comm bench: the link test of the Gaudi guide, with hccl_demo's options and output.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>
#include <vector>

#include "cli/bench_common.h"
#include "cli/comm_bench_job.h"
#include "cli/command.h"

namespace hadal {
namespace {

struct CommBenchFlags {
  CommBenchJob job;
  std::string test = "broadcast", measure = "bw", size = "33554432", data_type = "float", reduction_op = "sum";
  std::vector<std::string> size_range;
  int size_range_inc = 1;
  std::string ranks_list, custom_comm;
  bool no_correctness = false, list_tests = false, mpi = false;
  std::string without_meaning;  // flags that are taken and change nothing
  int scaleup_group_size = 0;
  bool ignored = false;
};
CommBenchFlags g_flags;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

Status read_tests(CommBenchFlags& flags) {
  if (flags.test == "all") {
    flags.job.tests = all_comm_tests();
    return {};
  }
  if (flags.test == "scale_validation") {
    return make_error(ErrorCode::kUnsupported,
                      "--test scale_validation compares with the rates of Gaudi cards; hadal comm check measures every "
                      "pair of nodes against thresholds of yours");
  }
  HADAL_ASSIGN_OR_RETURN(const CommTest test, parse_comm_test(flags.test));
  flags.job.tests = {test};
  return {};
}

Status read_ranks(CommBenchFlags& flags) {
  CommBenchJob& job = flags.job;
  if (!flags.ranks_list.empty()) {
    HADAL_ASSIGN_OR_RETURN(const std::vector<int> ranks, parse_rank_list("--ranks_list", flags.ranks_list));
    if (ranks.size() % 2 != 0 || flags.test != "send_recv") {
      return make_error(ErrorCode::kInvalidArgument,
                        "--ranks_list {}: pairs of sender and receiver, of --test send_recv", flags.ranks_list);
    }
    for (size_t i = 0; i < ranks.size(); i += 2) job.bench.ranks_list.emplace_back(ranks[i], ranks[i + 1]);
  }
  if (!flags.custom_comm.empty()) {
    HADAL_ASSIGN_OR_RETURN(job.custom_comm, parse_rank_list("--custom_comm", flags.custom_comm));
    if (flags.test == "send_recv") {
      return make_error(ErrorCode::kInvalidArgument, "--custom_comm is not for --test send_recv: see --ranks_list");
    }
  }
  return {};
}

// From words to values. Errors: kInvalidArgument, kUnsupported.
Status read_flags(CommBenchFlags& flags) {
  CommBenchJob& job = flags.job;
  if (flags.mpi) {
    return make_error(ErrorCode::kUnsupported,
                      "--mpi: run this command on every node with --node_id instead (ranks are started here, mpirun is "
                      "not needed)");
  }
  HADAL_RETURN_IF_ERROR(read_tests(flags));
  HADAL_RETURN_IF_ERROR(read_ranks(flags));
  if (flags.measure != "bw" && flags.measure != "latency") {
    return make_error(ErrorCode::kInvalidArgument, "--measure {}: bw or latency", flags.measure);
  }
  job.bench.latency = flags.measure == "latency";
  if (flags.data_type != "float" && flags.data_type != "bfloat16") {
    return make_error(ErrorCode::kInvalidArgument, "--data_type {}: float or bfloat16", flags.data_type);
  }
  job.bench.dtype = flags.data_type == "float" ? DType::kF32 : DType::kBF16;
  HADAL_ASSIGN_OR_RETURN(job.bench.reduction, parse_comm_reduction(flags.reduction_op));
  job.bench.check_correctness = !flags.no_correctness;
  if (environment("HCCL_GAUDI_DIRECT") == "1") job.bench.num_warm_ups = 33;
  job.is_range = !flags.size_range.empty();
  if (job.is_range) {
    HADAL_ASSIGN_OR_RETURN(job.sizes, comm_size_range(flags.size_range[0], flags.size_range[1], flags.size_range_inc));
  } else {
    HADAL_ASSIGN_OR_RETURN(const int64_t size, read_comm_size(flags.size));
    job.sizes = {size};
  }
  job.comm_id = environment("HCCL_COMM_ID");
  for (const char* name : {"HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "HADAL_IFACE"}) {
    if (job.interface_name.empty()) job.interface_name = environment(name);
  }
  for (const std::string& token : {environment("HADAL_AUTH_TOKEN"), job.comm_id}) {
    if (job.token.empty()) job.token = token;
  }
  return {};
}

int run_bench_command() {
  if (g_flags.list_tests) {
    for (const CommTest test : all_comm_tests()) fmt::print("{}\n", comm_test_name(test));
    return kExitOk;
  }
  if (const Status status = read_flags(g_flags); !status) {
    report_bench_error(status.error());
    return kExitBadUsage;
  }
  return run_comm_bench_job(g_flags.job);
}

void add_ignored_flags(CLI::App& command) {
  for (const char* name : {"--clean", "--no-color", "--ignore-mpi-errors"}) {
    command.add_flag(name, g_flags.ignored, "Taken for hccl_demo's sake; changes nothing");
  }
  command.add_option("--scaleup-group-size", g_flags.scaleup_group_size, "Taken for hccl_demo's sake; changes nothing");
  command.add_option("--scaleout-bw", g_flags.without_meaning, "Taken for hccl_demo's sake; changes nothing");
}

void add_bench_command(CLI::App& comm) {
  CommBenchJob& job = g_flags.job;
  CLI::App* command = comm.add_subcommand("bench", "Time collectives between ranks, as hccl_demo does");
  command
      ->add_option("--test", g_flags.test,
                   "broadcast, all_reduce, reduce_scatter, all_gather, send_recv, reduce, all2all; all: each of them")
      ->capture_default_str();
  command->add_option("--nranks", job.nranks, "Ranks on all nodes");
  command->add_option("--node-id", job.node_id, "Number of this node, from 0; without it the ranks run here");
  command->add_option("--ranks-per-node", job.ranks_per_node, "Ranks on each node; default: --nranks");
  command->add_option("--size", g_flags.size, "Bytes of input per rank; 32m, 1.5G: powers of 1024")
      ->capture_default_str();
  command->add_option("--size-range", g_flags.size_range, "From MIN to MAX, with a table at the end")->expected(2);
  command->add_option("--size-range-inc", g_flags.size_range_inc, "Each size is 2^M times the one before")
      ->capture_default_str();
  command->add_option("--loop", job.bench.loop, "Iterations")->capture_default_str();
  command->add_option("--measure", g_flags.measure, "bw or latency")->capture_default_str();
  command->add_option("--test-root", job.bench.root, "Root of broadcast and reduce; the rank that prints")
      ->capture_default_str();
  command->add_option("--data-type", g_flags.data_type, "float or bfloat16")->capture_default_str();
  command->add_option("--reduction-op", g_flags.reduction_op, "sum, min or max")->capture_default_str();
  command->add_option("--ranks-list", g_flags.ranks_list, "send_recv: sender,receiver,sender,receiver ...");
  command->add_option("--custom-comm", g_flags.custom_comm, "Only these ranks take part: 0,1,8,9");
  command->add_flag("--same-buffers", job.bench.same_buffers, "One pair of buffers for all iterations");
  command->add_flag("--no-correctness", g_flags.no_correctness, "Do not check the results");
  command->add_option("--result-csv,--csv-path", job.result_csv, "Append a line of results to this file");
  command->add_option("--data-csv", job.data_csv, "Write input and output of the check into this folder");
  command->add_option("--timeout", job.timeout_minutes, "End everything after so many minutes; 0: never")
      ->capture_default_str();
  command->add_option("--token", job.token, "Secret of this run; default: HADAL_AUTH_TOKEN, else HCCL_COMM_ID");
  command->add_flag("--list-tests,--list", g_flags.list_tests, "Print the names of the tests");
  command->set_help_flag("-h,--help,--doc", "Print this help message and exit");
  command->add_flag("--mpi", g_flags.mpi)->group("");
  add_ignored_flags(*command);
  command->footer(
      "Environment: HCCL_COMM_ID=<address of node 0>:<port> (several nodes), HCCL_SOCKET_IFNAME or "
      "GLOO_SOCKET_IFNAME.\n"
      "Examples:\n  hadal comm bench --test all_reduce --nranks 2 --size 32m --loop 100\n"
      "  HCCL_COMM_ID=10.0.0.1:5555 hadal comm bench --nranks 16 --ranks_per_node 8 --node_id 0 --test all_reduce\n"
      "  (and the same on the other node with --node_id 1)\n"
      "Exit codes: 0 all results right, 1 a result is wrong or a rank was lost, 2 wrong command line.");
}

}  // namespace

const Command kCommBenchCommand = {add_bench_command, "bench", run_bench_command};

}  // namespace hadal
