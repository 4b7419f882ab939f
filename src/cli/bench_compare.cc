// hadal bench compare: two results of a benchmark side by side.
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "cli/bench_common.h"
#include "cli/command.h"

namespace hadal {
namespace {

std::vector<std::string> g_files;

int run_bench_compare() { return print_comparison(g_files[0], g_files[1]); }

void add_bench_compare(CLI::App& bench) {
  CLI::App* command = bench.add_subcommand("compare", "Two results side by side");
  command->add_option("files", g_files, "A.json B.json, as --json wrote them")->expected(2)->required();
  command->footer("Example:\n  hadal bench compare before.json after.json");
}

}  // namespace

const Command kBenchCompareCommand = {add_bench_compare, "compare", run_bench_compare};

}  // namespace hadal
