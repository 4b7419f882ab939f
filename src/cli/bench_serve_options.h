// The command line of `hadal bench serve`: vLLM's benchmark_serving.py and what is ours.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "bench/serve_dataset.h"
#include "bench/serve_metrics.h"

namespace CLI {
class App;
}

namespace hadal {

struct BenchServeOptions {
  // Who is asked.
  std::string backend = "vllm";  // vllm and openai: completions; openai-chat: chat
  std::string base_url;          // empty: http://host:port
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string endpoint;  // empty: what the backend has
  std::string model, served_model_name;
  std::string tokenizer;
  std::string api_key, ca_file;
  bool insecure = false;
  std::vector<std::string> headers;  // NAME=VALUE

  // Load.
  int64_t num_prompts = 1000;
  std::vector<double> request_rates = {std::numeric_limits<double>::infinity()};
  double burstiness = 1.0;
  std::vector<int64_t> max_concurrencies;  // empty: no bound
  uint32_t seed = 0;
  int64_t num_warmups = 0;

  // The request.
  bool ignore_eos = false;
  int64_t best_of = 1;
  std::optional<int64_t> logprobs;
  double temperature = 0;
  std::optional<double> top_p, min_p;
  std::optional<int64_t> top_k;
  std::string extra_body;  // a JSON object

  // Data.
  std::string dataset_name;  // empty: sharegpt with a path, else random
  std::string dataset_path;
  RandomPromptOptions random;
  std::string random_rule = "old";
  std::optional<double> random_range_ratio;
  std::optional<int64_t> sharegpt_output_len;
  SonnetPromptOptions sonnet;

  // Report.
  std::string percentile_metrics = "ttft,tpot,itl", metric_percentiles = "99";
  std::vector<std::string> goodput, metadata;
  bool save_result = false, save_detailed = false, disable_progress = false;
  std::string result_dir = ".", result_filename, plot;

  bool is_chat() const { return backend == "openai-chat"; }
};

// Adds all flags.
void add_bench_serve_flags(CLI::App& command, BenchServeOptions& options);

// What CLI11 does not check: numbers out of range, words that do not fit together. Error: kInvalidArgument naming the
// flag.
Status check_bench_serve_options(const BenchServeOptions& options);

// "99,99.9". Error: kInvalidArgument.
Expected<std::vector<double>> parse_percents(const std::string& text);

// Of NAME=VALUE. Error: kInvalidArgument naming the flag.
Expected<std::vector<std::pair<std::string, std::string>>> parse_pairs(const std::vector<std::string>& texts,
                                                                       const char* flag);

}  // namespace hadal
