// hadal bench throughput: many requests at once through the engine, as vLLM's benchmark reports them.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <string>

#include "bench/throughput.h"
#include "cli/bench_common.h"
#include "cli/command.h"

namespace hadal {
namespace {

ThroughputOptions g_options;
std::string g_model, g_json;

int run_bench_throughput() {
  g_options.model.dir = g_model;
  const auto report = run_throughput(g_options);
  if (!report) return report_bench_error(report.error());
  fmt::print("{}", throughput_text(*report));
  const auto written = write_json_file(g_json, throughput_json(*report));
  if (!written) return report_bench_error(written.error());
  return report->num_failed == 0 ? kExitOk : kExitFailed;
}

void add_bench_throughput(CLI::App& bench) {
  ThroughputOptions& o = g_options;
  CLI::App* command = bench.add_subcommand("throughput", "Many requests at once, through scheduler and model");
  const auto add = [&](const char* name, int64_t& value, const char* help) {
    command->add_option(name, value, help)->capture_default_str();
  };
  command->add_option("--model", g_model, "Hugging Face folder of the model")->required();
  add("--num-prompts", o.num_prompts, "Requests, all submitted at the start");
  add("--input-len", o.input_len, "Random prompt tokens of each");
  add("--output-len", o.output_len, "Generated tokens of each");
  add("--max-num-seqs", o.max_num_seqs, "Sequences in a step");
  add("--max-num-batched-tokens", o.max_num_batched_tokens, "Tokens in a step");
  add("--block-size", o.block_size, "Tokens of a cache block");
  command->add_option("--threads", o.model.num_threads, "Threads; 0: one per physical core")->capture_default_str();
  command->add_option("--isa", o.model.isa, "Kernels")->capture_default_str();
  command->add_option("--kv-cache-dtype", o.model.kv_cache_dtype, kKvCacheDTypeHelp)->capture_default_str();
  command->add_option("--seed", o.seed, "Of the prompts")->capture_default_str();
  command->add_option("--json", g_json, "Write the results to this file");
  command->footer("Example:\n  hadal bench throughput --model models/nano --num-prompts 64");
}

}  // namespace

const Command kBenchThroughputCommand = {add_bench_throughput, "throughput", run_bench_throughput};

}  // namespace hadal
