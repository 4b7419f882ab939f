// hadal bench tune: finds the kernel settings that are fastest on this machine and keeps them for later runs.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>

#include "base/topology.h"
#include "bench/tune.h"
#include "cli/bench_common.h"
#include "cli/command.h"

namespace hadal {
namespace {

TuneOptions g_options;
std::string g_model, g_cache;
bool g_dry_run = false;

int run_bench_tune() {
  g_options.model = g_model;
  const auto report = run_tune(g_options);
  if (!report) return report_bench_error(report.error());
  fmt::print("{}", tune_text(*report));
  if (g_dry_run) return kExitOk;
  const std::optional<std::filesystem::path> path =
      g_cache.empty() ? tuning_cache_path() : std::filesystem::path(g_cache);
  if (!path) {
    return report_bench_error({ErrorCode::kIo, "neither XDG_CACHE_HOME nor HOME says where to keep it: give --cache"});
  }
  MachineTuning kept = report->best;
  if (kept.num_threads == default_num_threads()) kept.num_threads = 0;
  if (const auto saved = save_tuning(*path, *report->kernels, kept); !saved) return report_bench_error(saved.error());
  fmt::print("kept in {}\n", path->string());
  return kExitOk;
}

void add_bench_tune(CLI::App& bench) {
  CLI::App* command = bench.add_subcommand("tune", "Find and keep the fastest kernel settings; answers stay the same");
  command->add_option("--model", g_model, "Model folder, or a config.json without weights")->required();
  command->add_option("--isa", g_options.isa, "Kernels")->capture_default_str();
  command->add_option("--threads", g_options.num_threads, "Threads; 0: find out")->capture_default_str();
  command->add_option("--rounds", g_options.rounds, "Times that every candidate runs")->capture_default_str();
  command->add_option("--cache", g_cache, "File to keep the result in; empty: tuning.json in the user's cache folder");
  command->add_flag("--dry-run", g_dry_run, "Keep nothing");
  command->footer(
      "hadal serve and hadal bench read the kept settings when they start.\n"
      "Example:\n  hadal bench tune --model bench/shapes/r1_slice.json");
}

}  // namespace

const Command kBenchTuneCommand = {add_bench_tune, "tune", run_bench_tune};

}  // namespace hadal
