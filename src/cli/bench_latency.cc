// hadal bench latency: prefill and decode speed of a model folder, beside the machine's ceilings.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "bench/latency.h"
#include "bench/plot.h"
#include "cli/bench_common.h"
#include "cli/bench_ranks.h"
#include "cli/command.h"

namespace hadal {
namespace {

struct BenchLatencyOptions {
  LatencyOptions bench;
  std::string model, json, plot;
  std::vector<std::string> compare;
  int num_ranks = 1;
};
BenchLatencyOptions g_options;

int run_bench_latency() {
  BenchLatencyOptions& options = g_options;
  if (!options.compare.empty()) return print_comparison(options.compare[0], options.compare[1]);
  if (options.model.empty()) {
    return report_bench_error({ErrorCode::kInvalidArgument, "--model is required (or --compare A.json B.json)"});
  }
  options.bench.model.dir = options.model;
  const auto ranked = rank_bench_model(options.num_ranks, options.bench.max_num_batched_tokens, options.bench.model);
  if (!ranked) return report_bench_error(ranked.error());
  const auto report = run_latency(options.bench);
  if (!report) return report_bench_error(report.error());
  fmt::print("{}", report_table(*report));
  for (const std::string& note : report->notes) fmt::print("{}\n", note);
  const Json json = report_json(*report);
  if (auto written = write_json_file(options.json, json); !written) return report_bench_error(written.error());
  if (options.plot.empty()) return kExitOk;
  const auto svg = plot_report(json);
  if (!svg) return report_bench_error(svg.error());
  const auto written = write_file_atomically(options.plot, *svg);
  return written ? kExitOk : report_bench_error(written.error());
}

void add_bench_latency(CLI::App& bench) {
  LatencyOptions& options = g_options.bench;
  CLI::App* command = bench.add_subcommand("latency", "Prefill and decode steps of a model, without a server");
  command->add_option("--model", g_options.model, "Hugging Face folder of the model");
  add_list_option(*command, "--prefill", options.prefill_tokens, "Prompt lengths");
  add_list_option(*command, "--batch", options.batches, "Sequences in a decode step");
  add_list_option(*command, "--depth", options.depths, "Tokens that each sequence has in the cache");
  command->add_option("--repetitions", options.repetitions, "Measurements of each row")->capture_default_str();
  command->add_option("--threads", options.model.num_threads, "Threads; 0: one per physical core")
      ->capture_default_str();
  command
      ->add_option("--tensor-parallel-size", g_options.num_ranks,
                   "Processes on this machine that share each step; --threads is of each")
      ->capture_default_str();
  command->add_option("--isa", options.model.isa, "Kernels")->capture_default_str();
  command->add_option("--kv-cache-dtype", options.model.kv_cache_dtype, kKvCacheDTypeHelp)->capture_default_str();
  command->add_option("--max-num-batched-tokens", options.max_num_batched_tokens, "Longest chunk of a prompt")
      ->capture_default_str();
  command->add_option("--ceiling-seconds", options.ceiling_seconds, "How long to measure the machine first")
      ->capture_default_str();
  command->add_option("--seed", options.seed, "Of token ids and cache content")->capture_default_str();
  command->add_option("--json", g_options.json, "Write the results to this file");
  command->add_option("--plot", g_options.plot, "Write a chart (SVG) to this file");
  command->add_option("--compare", g_options.compare, "Measure nothing: show two results side by side")->expected(2);
  command->footer(
      "ceil%: the least time for the bytes and FLOPs of every phase, of the time taken; targ%: the project's own\n"
      "yardstick, and the goal for it. The other columns say where the time goes and sum to 100.\n"
      "Example:\n  hadal bench latency --model models/nano --prefill 128,512 --batch 1,8 --depth 0");
}

}  // namespace

const Command kBenchLatencyCommand = {add_bench_latency, "latency", run_bench_latency};

}  // namespace hadal
