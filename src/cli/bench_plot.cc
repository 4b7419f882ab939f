// hadal bench plot: a chart of results that were written earlier.
#include <CLI/CLI.hpp>
#include <string>

#include "base/file.h"
#include "bench/plot.h"
#include "cli/bench_common.h"
#include "cli/command.h"

namespace hadal {
namespace {

std::string g_results, g_chart;

int run_bench_plot() {
  const auto json = read_json_file(g_results);
  if (!json) return report_bench_error(json.error());
  auto svg = plot_report(*json);
  if (!svg) return report_bench_error(std::move(svg).error().in(g_results));
  const auto written = write_file_atomically(g_chart, *svg);
  return written ? kExitOk : report_bench_error(written.error());
}

void add_bench_plot(CLI::App& bench) {
  CLI::App* command = bench.add_subcommand("plot", "A chart (SVG) of results that --json wrote");
  command->add_option("results", g_results, "RESULTS.json of bench latency")->required();
  command->add_option("chart", g_chart, "CHART.svg to write")->required();
  command->footer("Example:\n  hadal bench plot latency.json latency.svg");
}

}  // namespace

const Command kBenchPlotCommand = {add_bench_plot, "plot", run_bench_plot};

}  // namespace hadal
