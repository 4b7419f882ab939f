// hadal bench engine: what scheduling and sampling cost, without a model.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <string>

#include "bench/engine_bench.h"
#include "cli/bench_common.h"
#include "cli/command.h"

namespace hadal {
namespace {

EngineBenchOptions g_options;
std::string g_json;

int run_bench_engine() {
  const auto report = run_engine_bench(g_options);
  if (!report) return report_bench_error(report.error());
  fmt::print("{}", engine_report_table(*report));
  const auto written = write_json_file(g_json, engine_report_json(*report));
  return written ? kExitOk : report_bench_error(written.error());
}

void add_bench_engine(CLI::App& bench) {
  CLI::App* command =
      bench.add_subcommand("engine", "Planning, committing and sampling, with a model that does nothing");
  command->add_option("--sequences", g_options.num_sequences, "Sequences in a step")->capture_default_str();
  command->add_option("--steps", g_options.num_steps, "Steps to time")->capture_default_str();
  add_list_option(*command, "--queued", g_options.queue_lengths, "Requests that wait meanwhile");
  command->add_option("--vocab", g_options.vocab_size, "Logits of a row")->capture_default_str();
  command->add_option("--isa", g_options.isa, "Instruction set of the sampler")->capture_default_str();
  command->add_option("--json", g_json, "Write the results to this file");
  command->footer("Example:\n  hadal bench engine --sequences 32");
}

}  // namespace

const Command kBenchEngineCommand = {add_bench_engine, "engine", run_bench_engine};

}  // namespace hadal
