// hadal bench ceilings: what this machine can do at best.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "base/file.h"
#include "bench/ceilings.h"
#include "cli/command.h"

namespace hadal {
namespace {

struct BenchCeilingsOptions {
  CeilingOptions probe;
  std::string disk;
  std::string json;  // file to write; "-": stdout in place of the table; empty: none
};
BenchCeilingsOptions g_options;

std::string value_text(const std::string& unit, double value) {
  if (unit == "s") return fmt::format("{:.2f} us", value * 1e6);
  return fmt::format("{:.{}f} {}", value / 1e9, value < 1e11 ? 1 : 0, unit == "B/s" ? "GB/s" : "Gop/s");
}

void print_ceiling(const char* label, const char* unit, double value, const char* note) {
  fmt::print("{:<28} {:>14}  {}\n", label, value > 0 ? value_text(unit, value) : "-", note);
}

void print_summary(const Ceilings& ceilings) {
  fmt::print("{}, {} threads, last-level cache {:.0f} MiB\n\n", ceilings.cpu.empty() ? "this machine" : ceilings.cpu,
             ceilings.num_threads, ceilings.l3_bytes / (1 << 20));
  print_ceiling("read", "B/s", ceilings.read_bytes_per_s, "");
  print_ceiling("read, highest median", "B/s", ceilings.read_median_bytes_per_s, "the usual state of a shared machine");
  print_ceiling("memcpy", "B/s", ceilings.memcpy_bytes_per_s, "bytes copied");
  print_ceiling("first touch", "B/s", ceilings.first_touch_bytes_per_s, "fresh pages written");
  print_ceiling("BF16 multiply", "op/s", ceilings.bf16_flops, "2 per multiply-add, as below");
  print_ceiling("FP32 multiply", "op/s", ceilings.fp32_flops, "");
  print_ceiling("INT8 multiply", "op/s", ceilings.int8_ops, "");
  print_ceiling("disk, direct I/O", "B/s", ceilings.disk_read_bytes_per_s, "--disk");
  print_ceiling("barrier", "s", ceilings.barrier_s, "an empty parallel loop");
}

void print_probes(const Ceilings& ceilings) {
  fmt::print("\n{:<12} {:<18} {:>7} {:>5} {:<6} {:>12} {:>12} {:>12} {:>12} {:>3}\n", "probe", "variant", "threads",
             "node", "pages", "best", "median", "min", "max", "n");
  for (const ProbeResult& probe : ceilings.probes) {
    const std::string node = probe.numa_node < 0 ? "all" : fmt::format("{}", probe.numa_node);
    fmt::print("{:<12} {:<18} {:>7} {:>5} {:<6} {:>12} {:>12} {:>12} {:>12} {:>3}\n", probe.what, probe.variant,
               probe.num_threads, node, probe.pages, value_text(probe.unit, probe.best),
               value_text(probe.unit, probe.median), value_text(probe.unit, probe.min),
               value_text(probe.unit, probe.max), probe.num_samples);
  }
}

int report_error(const Error& error) {
  std::fprintf(stderr, "hadal: %s\n", error.message.c_str());
  return error.code == ErrorCode::kInvalidArgument ? kExitBadUsage : kExitFailed;
}

int run_bench_ceilings() {
  g_options.probe.disk = g_options.disk;
  auto ceilings = measure_ceilings(g_options.probe);
  if (!ceilings) return report_error(ceilings.error());
  const std::string json = ceilings_to_json(*ceilings).dump(2);
  if (g_options.json == "-") {
    fmt::print("{}\n", json);
    return kExitOk;
  }
  print_summary(*ceilings);
  print_probes(*ceilings);
  if (!g_options.json.empty()) {
    if (auto written = write_file_atomically(g_options.json, json + "\n"); !written) {
      return report_error(written.error());
    }
  }
  return kExitOk;
}

void add_bench_ceilings(CLI::App& bench) {
  CLI::App* command = bench.add_subcommand("ceilings", "Bandwidth, multiply rates, disk and barrier of this machine");
  command->add_option("--threads", g_options.probe.num_threads, "Threads; 0: one per physical core")
      ->capture_default_str();
  command->add_option("--seconds", g_options.probe.seconds, "About how long to measure")->capture_default_str();
  command->add_option("--disk", g_options.disk, "File to read by direct I/O, or a folder: its largest file");
  command->add_option("--json", g_options.json, "Write JSON to this file; without a name to stdout, and no table")
      ->expected(0, 1)
      ->default_str("-");
  command->footer(
      "The machine should do nothing else meanwhile. Every rate is the best of its probes.\n"
      "Example:\n  hadal bench ceilings --json ceilings.json --disk models/nano");
}

}  // namespace

const Command kBenchCeilingsCommand = {add_bench_ceilings, "ceilings", run_bench_ceilings};

}  // namespace hadal
