// hadal bench: one benchmark per subcommand. A new one is a Command and a line in the table.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "cli/command.h"

namespace hadal {
namespace {

const Command* const kBenchmarks[] = {&kBenchCeilingsCommand,   &kBenchLatencyCommand, &kBenchLoadCommand,
                                      &kBenchThroughputCommand, &kBenchKernelsCommand, &kBenchEngineCommand,
                                      &kBenchTuneCommand,       &kBenchLiveCommand,    &kBenchServeCommand,
                                      &kBenchPlotCommand,       &kBenchCompareCommand};

const CLI::App* g_bench = nullptr;

void add_bench_command(CLI::App& program) {
  CLI::App* command = program.add_subcommand("bench", "Measure speed, beside what the machine can do at best");
  for (const Command* benchmark : kBenchmarks) {
    benchmark->add(*command);
    command->get_subcommand(benchmark->name)->allow_extras();
  }
  g_bench = command;
}

int run_bench() {
  for (const Command* benchmark : kBenchmarks) {
    if (g_bench->got_subcommand(benchmark->name)) return benchmark->run();
  }
  std::fputs(g_bench->help().c_str(), stdout);
  return kExitBadUsage;
}

}  // namespace

const Command kBenchCommand = {add_bench_command, "bench", run_bench};

}  // namespace hadal
