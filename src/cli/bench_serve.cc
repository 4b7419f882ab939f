// hadal bench serve: a load on any OpenAI server, measured and reported as vLLM's benchmark client does.
#include <fmt/core.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>

#include "base/file.h"
#include "base/progress.h"
#include "bench/serve_plot.h"
#include "bench/serve_report.h"
#include "cli/bench_common.h"
#include "cli/bench_serve_inputs.h"
#include "cli/bench_serve_options.h"
#include "cli/command.h"
#include "formats/python_json.h"

namespace hadal {
namespace {

BenchServeOptions g_options;

// A connection for every request under way.
void allow_many_connections() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

std::string local_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::localtime_r(&now, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof(text), "%Y%m%d-%H%M%S", &parts)};
}

// What is reported, the same for all runs of a list.
struct Reporting {
  ServeSetup setup;
  std::vector<double> percents;
  std::vector<ServeSlo> slos;
};

Expected<Reporting> reporting_of(const BenchServeOptions& options) {
  Reporting reporting;
  ServeSetup& setup = reporting.setup;
  setup.date = local_date();
  setup.backend = options.backend;
  setup.best_of = options.best_of;
  HADAL_ASSIGN_OR_RETURN(setup.metrics, parse_serve_metrics(options.percentile_metrics));
  HADAL_ASSIGN_OR_RETURN(setup.metadata, parse_pairs(options.metadata, "--metadata"));
  HADAL_ASSIGN_OR_RETURN(reporting.percents, parse_percents(options.metric_percentiles));
  for (const std::string& text : options.goodput) {
    HADAL_ASSIGN_OR_RETURN(const ServeSlo slo, parse_serve_slo(text));
    reporting.slos.push_back(slo);
  }
  return reporting;
}

std::vector<ServeLoad> loads_of(const BenchServeOptions& options) {
  std::vector<ServeLoad> loads;
  for (const double rate : options.request_rates) {
    const ServeLoad load = {.request_rate = rate, .burstiness = options.burstiness};
    if (options.max_concurrencies.empty()) loads.push_back(load);
    for (const int64_t limit : options.max_concurrencies) {
      loads.push_back(load);
      loads.back().max_concurrency = limit;
    }
  }
  return loads;
}

std::string label_of(const ServeLoad& load) {
  const std::string limit = load.max_concurrency ? fmt::format("concurrency{}", *load.max_concurrency) : "";
  if (std::isinf(load.request_rate)) return limit.empty() ? "infqps" : limit;
  return fmt::format("{}qps{}{}", python_float(load.request_rate), limit.empty() ? "" : "-", limit);
}

// "x.svg" becomes "x-LABEL.svg" where there are several.
std::string with_label(const std::string& path, const std::string& label, bool several) {
  const std::filesystem::path whole(path);
  if (!several) return path;
  return (whole.parent_path() / (whole.stem().string() + "-" + label + whole.extension().string())).string();
}

Status warm_up(const BenchServeOptions& options, const BenchServeInputs& inputs, HttpClient& client) {
  constexpr int64_t kTestTokens = 10;
  fmt::print("Starting initial single prompt test run...\n");
  std::fflush(stdout);
  ServePrompt prompt = inputs.prompts.front();
  prompt.num_output_tokens = kTestTokens;
  const ServeRecord test = serve_once(client, inputs.target, prompt);
  if (!test.success) {
    return make_error(ErrorCode::kUnavailable,
                      "the test request failed: {}; is the server ready, and are --model, "
                      "--endpoint and --backend right?",
                      test.error);
  }
  for (int64_t i = 0; i < options.num_warmups; ++i) {
    const ServePrompt& next = inputs.prompts[static_cast<size_t>(i) % inputs.prompts.size()];
    const ServeRecord record = serve_once(client, inputs.target, next);
    if (!record.success) return make_error(ErrorCode::kUnavailable, "a warm-up request failed: {}", record.error);
  }
  fmt::print("Initial test run completed. Starting main benchmark run...\n");
  std::fflush(stdout);
  return {};
}

ServeRun measure(const BenchServeOptions& options, const BenchServeInputs& inputs, const ServeLoad& load,
                 HttpClient& client) {
  ProgressBar bar("requests", "req");
  NumpyRandom random = inputs.random;  // every run of a list has the same gaps
  ServeRun run = run_serve_load(client, inputs.target, inputs.prompts, load, random, [&](size_t ended) {
    if (!options.disable_progress) bar.update(ended, inputs.prompts.size());
  });
  bar.finish();
  count_missing_tokens(run, *inputs.tokenizer);
  return run;
}

Status save(const BenchServeOptions& options, const Reporting& reporting, const ServeRun& run,
            const ServeSummary& summary, bool several) {
  const ServeSetup& setup = reporting.setup;
  if (options.save_result || options.save_detailed) {
    std::error_code failed;
    std::filesystem::create_directories(options.result_dir, failed);
    const std::string name = options.result_filename.empty()
                                 ? serve_result_name(setup)
                                 : with_label(options.result_filename, label_of(setup.load), several);
    const std::string path = (std::filesystem::path(options.result_dir) / name).string();
    HADAL_RETURN_IF_ERROR(write_json_file(path, serve_json(summary, setup, run)));
    const std::string stem = path.ends_with(".json") ? path.substr(0, path.size() - 5) : path;
    if (options.save_detailed) {
      HADAL_RETURN_IF_ERROR(write_file_atomically(stem + ".requests.jsonl", serve_records_jsonl(run)));
    }
  }
  if (options.plot.empty()) return {};
  const std::string subtitle =
      fmt::format("{}, {} requests, {}, {}", setup.backend, run.records.size(), label_of(setup.load), setup.date);
  return write_file_atomically(with_label(options.plot, label_of(setup.load), several),
                               plot_serve_run(run, summary, "hadal bench serve: " + setup.model_id, subtitle));
}

// The number of requests that failed.
Expected<int64_t> run_all(const BenchServeOptions& options) {
  HADAL_RETURN_IF_ERROR(check_bench_serve_options(options));
  HADAL_ASSIGN_OR_RETURN(Reporting reporting, reporting_of(options));
  allow_many_connections();
  HttpClient client({.ca_file = options.ca_file, .verify_tls = !options.insecure});
  HADAL_ASSIGN_OR_RETURN(const BenchServeInputs inputs, prepare_bench_serve(options, client));
  ServeSetup& setup = reporting.setup;
  setup.model_id = inputs.model_id;
  setup.tokenizer_id = inputs.tokenizer_dir;
  HADAL_RETURN_IF_ERROR(warm_up(options, inputs, client));
  const std::vector<ServeLoad> loads = loads_of(options);
  const bool several = loads.size() > 1;
  std::vector<ServePoint> points;
  int64_t num_failed = 0;
  for (const ServeLoad& load : loads) {
    setup.load = load;
    fmt::print("{}", serve_traffic_text(load));
    std::fflush(stdout);
    const ServeRun run = measure(options, inputs, load, client);
    const ServeSummary summary = summarise_serve_run(run, reporting.percents, reporting.slos);
    fmt::print("{}{}", serve_table(summary, setup), serve_notes(summary, setup, run));
    std::fflush(stdout);
    HADAL_RETURN_IF_ERROR(save(options, reporting, run, summary, several));
    num_failed += summary.failed;
    points.push_back({label_of(load), summary});
  }
  if (several && !options.plot.empty()) {
    const std::string subtitle =
        fmt::format("{}, {} requests each, {}", setup.backend, options.num_prompts, setup.date);
    HADAL_RETURN_IF_ERROR(write_file_atomically(
        options.plot, plot_serve_sweep(points, "hadal bench serve: " + setup.model_id, subtitle)));
  }
  return num_failed;
}

int run_bench_serve() {
  const auto num_failed = run_all(g_options);
  if (!num_failed) return report_bench_error(num_failed.error());
  return *num_failed == 0 ? kExitOk : kExitFailed;
}

void add_bench_serve(CLI::App& bench) {
  CLI::App* command = bench.add_subcommand("serve", "Load any OpenAI server, with vLLM's flags, table and JSON");
  add_bench_serve_flags(*command, g_options);
  command->footer(
      "Example:\n  hadal bench serve --base-url http://127.0.0.1:8000 --model models/nano --dataset-name random \\\n"
      "    --random-input-len 128 --random-output-len 128 --num-prompts 96 --max-concurrency 32 --ignore-eos\n"
      "Exit codes: 0 done, 1 a request failed, 2 wrong command line.");
}

}  // namespace

const Command kBenchServeCommand = {add_bench_serve, "serve", run_bench_serve};

}  // namespace hadal
