// hadal bench load: how fast a folder loads.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <string>

#include "bench/load_bench.h"
#include "cli/bench_common.h"
#include "cli/command.h"

namespace hadal {
namespace {

LoadBenchOptions g_options;
std::string g_json;

int run_bench_load() {
  const auto report = run_load_bench(g_options);
  if (!report) return report_bench_error(report.error());
  fmt::print("{}", load_report_table(*report));
  const auto written = write_json_file(g_json, load_report_json(*report));
  return written ? kExitOk : report_bench_error(written.error());
}

void add_bench_load(CLI::App& bench) {
  CLI::App* command = bench.add_subcommand("load", "Reading and packing a model folder");
  command->add_option("--model", g_options.model.dir, "Model folder")->required();
  command->add_option("--isa", g_options.model.isa, "Kernels, as for hadal serve")->capture_default_str();
  command->add_option("--threads", g_options.model.num_threads, "0: one per core")->check(CLI::NonNegativeNumber);
  command->add_option("--json", g_json, "Write the results to this file");
  command->footer("Example:\n  hadal bench load --model /data/DeepSeek-R1");
}

}  // namespace

const Command kBenchLoadCommand = {add_bench_load, "load", run_bench_load};

}  // namespace hadal
