// hadal bench kernels: the matrix shapes of a model, one by one, beside the machine's ceilings.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <string>

#include "bench/kernel_bench.h"
#include "cli/bench_common.h"
#include "cli/command.h"

namespace hadal {
namespace {

KernelBenchOptions g_options;
std::string g_model, g_json;

int run_bench_kernels() {
  g_options.model = g_model;
  const auto report = run_kernel_bench(g_options);
  if (!report) return report_bench_error(report.error());
  fmt::print("{}", kernel_report_table(*report));
  const auto written = write_json_file(g_json, kernel_report_json(*report));
  return written ? kExitOk : report_bench_error(written.error());
}

void add_bench_kernels(CLI::App& bench) {
  CLI::App* command = bench.add_subcommand("kernels", "Each matrix shape and attention form of a model, alone");
  command->add_option("--model", g_model, "Model folder, or a config.json without weights")->required();
  command->add_option("--isa", g_options.isa, "Kernels")->capture_default_str();
  add_list_option(*command, "--tokens", g_options.tokens, "Tokens per matrix");
  add_list_option(*command, "--absorbed", g_options.absorbed_positions, "Positions of the absorbed form");
  add_list_option(*command, "--expanded", g_options.expanded_tokens, "Tokens of the expanded form");
  add_list_option(*command, "--threads", g_options.threads, "Numbers of threads; 0: one per physical core");
  command->add_option("--repetitions", g_options.repetitions, "Measurements of each row")->capture_default_str();
  command->add_option("--ceiling-seconds", g_options.ceiling_seconds, "How long to measure the machine first")
      ->capture_default_str();
  command->add_option("--json", g_json, "Write the results to this file");
  command->footer("Example:\n  hadal bench kernels --model bench/shapes/r1_slice.json --threads 0 --tokens 1,8,128");
}

}  // namespace

const Command kBenchKernelsCommand = {add_bench_kernels, "kernels", run_bench_kernels};

}  // namespace hadal
