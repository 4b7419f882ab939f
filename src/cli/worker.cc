// hadal worker: a node's agent, which starts the ranks of its node and starts lost ones again, or one rank, as the
// environment says (rank_contract.h). All else comes from rank 0.
#include <sys/prctl.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "base/log.h"
#include "cli/command.h"
#include "cli/config_registry.h"
#include "cli/launch_environment.h"
#include "cli/peer_environment.h"
#include "cli/program_build.h"
#include "cli/rank_agent.h"
#include "cli/rank_contract.h"
#include "cli/rank_options.h"
#include "cli/rank_worker.h"

namespace hadal {
namespace {

struct WorkerCommandLine {
  RankOptions ranks;
  std::string model;
  int num_threads = 0;
  std::unique_ptr<OptionRegistry> registry;
};
WorkerCommandLine g_options;

int fail(const Error& error) {
  log_error("{}", error.message);
  return error.code == ErrorCode::kInvalidArgument ? kExitBadUsage : kExitFailed;
}

// The environment's contract, or the flags': the agent of a node.
Expected<RankContract> choose_contract(const RankOptions& ranks) {
  HADAL_ASSIGN_OR_RETURN(const auto told, read_rank_contract(current_environment()));
  if (told && told->identity.rank != 0) return *told;
  if (told || ranks.node_rank == 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "hadal worker is for {} other than 0: give --nnodes and --node-rank, or set HADAL_RANK and the "
                      "others",
                      told ? "ranks" : "nodes");
  }
  HADAL_RETURN_IF_ERROR(check_rank_options(ranks));
  return node_contract(ranks);
}

// A rank inherits the environment of the server that started it, whose other options are not for it.
Environment own_environment(const OptionRegistry& registry) {
  Environment own;
  for (const auto& [name, value] : current_environment()) {
    bool is_known = !name.starts_with("HADAL_");
    for (const RegisteredOption& option : registry.options()) {
      for (const std::string& flag : option.names) is_known = is_known || environment_name(flag) == name;
    }
    if (is_known) own.emplace_back(name, value);
  }
  return own;
}

int run_worker() {
  prctl(PR_SET_NAME, "hadal");  // in ps and ss; a rank is started as /proc/self/exe
  std::vector<std::string> warnings;
  if (auto applied = apply_sources(*g_options.registry, own_environment(*g_options.registry), warnings); !applied) {
    return fail(applied.error());
  }
  g_options.ranks.headless = true;
  if (auto adopted = adopt_launcher(*g_options.registry, current_environment(), g_options.ranks); !adopted) {
    return fail(adopted.error());
  }
  auto contract = choose_contract(g_options.ranks);
  if (!contract) return fail(contract.error());
  // Each node may have its own name for the network.
  if (!g_options.ranks.interface_name.empty()) contract->identity.interface_name = g_options.ranks.interface_name;
  const auto version = program_build();
  if (!version) return fail(version.error());
  if (contract->is_agent) {
    const auto code = run_rank_agent({.identity = contract->identity,
                                      .version = *version,
                                      .model = g_options.model,
                                      .num_threads = g_options.num_threads,
                                      .join_timeout = g_options.ranks.join_timeout});
    return code ? *code : fail(code.error());
  }
  const auto stopped = run_rank_worker({.identity = contract->identity,
                                        .version = *version,
                                        .model = g_options.model,
                                        .num_threads = g_options.num_threads,
                                        .join_timeout = g_options.ranks.join_timeout});
  if (!stopped) return fail(stopped.error());
  return *stopped ? kExitOk : kExitRankZeroGone;
}

void add_worker_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand("worker", "Run the ranks of one node for a `hadal serve` on another");
  g_options.registry = std::make_unique<OptionRegistry>(*command);
  OptionRegistry& registry = *g_options.registry;
  registry.begin_group("Model");
  registry.add("--model", g_options.model, "The model folder on this node [the path that rank 0 has]");
  registry.add("--threads", g_options.num_threads, "Compute threads of each rank here [as rank 0 says]")
      ->check(CLI::Range(0, 4096));
  add_rank_options(registry, g_options.ranks);
  add_peer_environment(registry);
  command->footer(
      "The secret that ranks of different machines share comes from $HADAL_AUTH_TOKEN or --rank-token-file.\n"
      "Example:\n  hadal worker --nnodes 2 --node-rank 1 --tensor-parallel-size 2 --master-addr 10.0.0.1");
}

}  // namespace

const Command kWorkerCommand = {add_worker_command, "worker", run_worker};

}  // namespace hadal
