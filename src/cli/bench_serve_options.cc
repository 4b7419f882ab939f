#include "cli/bench_serve_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>

namespace hadal {
namespace {

void add_target(CLI::App& command, BenchServeOptions& o) {
  command.add_option("--backend", o.backend, "Route: vllm and openai ask completions, openai-chat asks chat")
      ->check(CLI::IsMember({"vllm", "openai", "openai-chat"}))
      ->capture_default_str();
  command.add_option("--base-url", o.base_url, "Server, also https:// or unix:/SOCKET; instead of --host and --port");
  command.add_option("--host", o.host, "Server")->capture_default_str();
  command.add_option("--port", o.port, "Of the server")->check(CLI::Range(1, 65535))->capture_default_str();
  command.add_option("--endpoint", o.endpoint, "Route; default: /v1/completions or /v1/chat/completions");
  command.add_option("--model", o.model, "Model's name in the API; default: the first that the server lists");
  command.add_option("--served-model-name", o.served_model_name, "Its name in the API, where --model is a folder");
  command.add_option("--tokenizer", o.tokenizer, "Model folder; default: --model, else the folder the server names");
  command.add_option("--api-key", o.api_key, "Bearer key")->envname("OPENAI_API_KEY");
  command.add_option("--header", o.headers, "NAME=VALUE ..: further headers");
  command.add_option("--ca-file", o.ca_file, "Certificates (PEM) to trust instead of the system's");
  command.add_flag("--insecure", o.insecure, "Take any certificate");
  // What vLLM's users also pass; there is nothing to choose here.
  command.add_flag("--trust-remote-code")->description("Accepted; no remote code is ever run");
  command.add_option("--tokenizer-mode")->description("Accepted; there is one")->check(CLI::IsMember({"auto", "slow"}));
}

void add_load(CLI::App& command, BenchServeOptions& o) {
  command.add_option("--num-prompts", o.num_prompts, "Requests")->capture_default_str();
  command.add_option("--request-rate", o.request_rates, "Requests a second, or inf; a list R,R,.. is measured in turn")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  command.add_option("--burstiness", o.burstiness, "Shape of the gamma distribution of gaps; 1: Poisson process")
      ->capture_default_str();
  command.add_option("--max-concurrency", o.max_concurrencies, "Requests under way; a list N,N,.. is measured in turn")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_option("--seed", o.seed, "Of prompts and gaps")->capture_default_str();
  command.add_option("--num-warmups", o.num_warmups, "Requests before the clock starts, besides the test request")
      ->capture_default_str();
}

void add_request(CLI::App& command, BenchServeOptions& o) {
  command.add_flag("--ignore-eos", o.ignore_eos, "Generate every token that is asked for");
  command.add_option("--best-of", o.best_of, "Sent with completions")->capture_default_str();
  command.add_option("--logprobs", o.logprobs, "Most likely tokens to ask for");
  command.add_option("--temperature", o.temperature, "Of sampling")->capture_default_str();
  command.add_option("--top-p", o.top_p, "Of sampling");
  command.add_option("--top-k", o.top_k, "Of sampling");
  command.add_option("--min-p", o.min_p, "Of sampling");
  command.add_option("--extra-body", o.extra_body, "JSON object: further fields of every request");
}

void add_data(CLI::App& command, BenchServeOptions& o) {
  command.add_option("--dataset-name", o.dataset_name, "Default: sharegpt with --dataset-path, else random")
      ->check(CLI::IsMember({"random", "sharegpt", "sonnet"}));
  command.add_option("--dataset-path", o.dataset_path, "ShareGPT's JSON, or a poem for sonnet");
  command.add_option("--random-input-len,--input-len", o.random.input_len, "Tokens of a prompt")->capture_default_str();
  command.add_option("--random-output-len,--output-len", o.random.output_len, "Tokens to ask for")
      ->capture_default_str();
  command.add_option("--random-range-ratio", o.random_range_ratio,
                     "old: lengths in [L*R, L], default 1; mid: in [L*(1-R), L*(1+R)], default 0");
  command.add_option("--random-rule", o.random_rule, "Of which client: old (vLLM 0.7, the Gaudi fork), mid (vLLM 0.9)")
      ->check(CLI::IsMember({"old", "mid"}))
      ->capture_default_str();
  command.add_option("--random-prefix-len", o.random.prefix_len, "Tokens in front that all prompts share")
      ->capture_default_str();
  command.add_option("--sharegpt-output-len", o.sharegpt_output_len, "Instead of the answer's length in the file");
  command.add_option("--sonnet-input-len", o.sonnet.input_len, "Tokens of a prompt, about")->capture_default_str();
  command.add_option("--sonnet-output-len", o.sonnet.output_len, "Tokens to ask for")->capture_default_str();
  command.add_option("--sonnet-prefix-len", o.sonnet.prefix_len, "Tokens that prompts share")->capture_default_str();
}

void add_report(CLI::App& command, BenchServeOptions& o) {
  command.add_option("--percentile-metrics", o.percentile_metrics, "Of ttft, tpot, itl, e2el")->capture_default_str();
  command.add_option("--metric-percentiles", o.metric_percentiles, "P,P,..")->capture_default_str();
  command.add_option("--goodput", o.goodput, "ttft:MS tpot:MS e2el:MS: counts requests within all of these bounds");
  command.add_flag("--save-result", o.save_result, "Write the result as JSON");
  command.add_flag("--save-detailed", o.save_detailed, "Also a line for each request (.requests.jsonl)");
  command.add_option("--metadata", o.metadata, "KEY=VALUE ..: written into the result");
  command.add_option("--result-dir", o.result_dir, "Where results go")->capture_default_str();
  command.add_option("--result-filename", o.result_filename, "Default: backend, rate, concurrency, model, date");
  command.add_option("--plot", o.plot,
                     "SVG: throughput over time, requests, histograms; of a list also latency against "
                     "throughput");
  command.add_flag("--disable-tqdm", o.disable_progress, "No progress bar");
}

Status check_numbers(const BenchServeOptions& o) {
  constexpr int64_t kMostRequests = 1'000'000, kMostTokens = int64_t{1} << 24, kMostTokensInAll = int64_t{1} << 32;
  const auto in_range = [](const char* flag, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return Status();
    return Status(make_error(ErrorCode::kInvalidArgument, "{} {}: must be in [{}, {}]", flag, value, least, most));
  };
  HADAL_RETURN_IF_ERROR(in_range("--num-prompts", o.num_prompts, 1, kMostRequests));
  HADAL_RETURN_IF_ERROR(in_range("--num-warmups", o.num_warmups, 0, kMostRequests));
  HADAL_RETURN_IF_ERROR(in_range("--random-input-len", o.random.input_len, 1, kMostTokens));
  HADAL_RETURN_IF_ERROR(in_range("--random-output-len", o.random.output_len, 1, kMostTokens));
  HADAL_RETURN_IF_ERROR(in_range("--random-prefix-len", o.random.prefix_len, 0, kMostTokens));
  HADAL_RETURN_IF_ERROR(in_range("--sharegpt-output-len", o.sharegpt_output_len.value_or(1), 1, kMostTokens));
  HADAL_RETURN_IF_ERROR(in_range("--sonnet-input-len", o.sonnet.input_len, 1, kMostTokens));
  HADAL_RETURN_IF_ERROR(in_range("--sonnet-output-len", o.sonnet.output_len, 1, kMostTokens));
  HADAL_RETURN_IF_ERROR(in_range("--logprobs", o.logprobs.value_or(0), 0, 1000));
  HADAL_RETURN_IF_ERROR(in_range("--best-of", o.best_of, 1, 100));
  for (const int64_t limit : o.max_concurrencies) {
    HADAL_RETURN_IF_ERROR(in_range("--max-concurrency", limit, 1, kMostRequests));
  }
  if (o.num_prompts * (2 * o.random.input_len + o.random.prefix_len) > kMostTokensInAll) {
    return make_error(ErrorCode::kInvalidArgument, "--num-prompts {} of --random-input-len {}: too many tokens in all",
                      o.num_prompts, o.random.input_len);
  }
  return {};
}

}  // namespace

void add_bench_serve_flags(CLI::App& command, BenchServeOptions& options) {
  add_target(command, options);
  add_load(command, options);
  add_request(command, options);
  add_data(command, options);
  add_report(command, options);
}

Status check_bench_serve_options(const BenchServeOptions& o) {
  HADAL_RETURN_IF_ERROR(check_numbers(o));
  for (const double rate : o.request_rates) {
    if (!(rate > 0)) return make_error(ErrorCode::kInvalidArgument, "--request-rate {}: must be above 0", rate);
  }
  if (!(o.burstiness > 0 && o.burstiness < 1e6)) {
    return make_error(ErrorCode::kInvalidArgument, "--burstiness {}: must be above 0 and below 1e6", o.burstiness);
  }
  const std::string route = o.is_chat() ? "/chat/completions" : "/completions";
  const bool is_chat_route = o.endpoint.ends_with("/chat/completions");
  if (!o.endpoint.empty() &&
      (!o.endpoint.starts_with('/') || !o.endpoint.ends_with(route) || is_chat_route != o.is_chat())) {
    return make_error(ErrorCode::kInvalidArgument, "--endpoint {}: --backend {} asks a route like /v1{}", o.endpoint,
                      o.backend, route);
  }
  const bool needs_file = o.dataset_name == "sharegpt" || o.dataset_name == "sonnet";
  if (needs_file && o.dataset_path.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "--dataset-name {}: needs --dataset-path", o.dataset_name);
  }
  if (o.dataset_name == "random" && !o.dataset_path.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "--dataset-path {}: random prompts come from no file",
                      o.dataset_path);
  }
  return {};
}

Expected<std::vector<double>> parse_percents(const std::string& text) {
  std::vector<double> percents;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    double value = -1;
    const auto [end, error] = std::from_chars(text.data() + at, text.data() + comma, value);
    if (error != std::errc() || end != text.data() + comma || !(value >= 0 && value <= 100)) {
      return make_error(ErrorCode::kInvalidArgument, "--metric-percentiles {}: must be numbers from 0 to 100", text);
    }
    percents.push_back(value);
    at = comma + 1;
  }
  return percents;
}

Expected<std::vector<std::pair<std::string, std::string>>> parse_pairs(const std::vector<std::string>& texts,
                                                                       const char* flag) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      return make_error(ErrorCode::kInvalidArgument, "{} {}: must be NAME=VALUE", flag, text);
    }
    pairs.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  return pairs;
}

}  // namespace hadal
