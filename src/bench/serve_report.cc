#include "bench/serve_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "formats/python_json.h"

namespace hadal {
namespace {

constexpr int kTableWidth = 50;

struct MetricWords {
  const char* title;
  const char* label;
};
constexpr MetricWords kWords[kNumServeMetrics] = {{"Time to First Token", "TTFT"},
                                                  {"Time per Output Token (excl. 1st token)", "TPOT"},
                                                  {"Inter-token Latency", "ITL"},
                                                  {"End-to-end Latency", "E2EL"}};

const MetricWords& words_of(ServeMetric metric) { return kWords[static_cast<size_t>(metric)]; }

// As Python's str.center-like format "{s:{c}^n}": the odd one goes to the right.
std::string centred(const std::string& text, char fill) {
  const int free = std::max(0, kTableWidth - static_cast<int>(text.size()));
  return std::string(static_cast<size_t>(free / 2), fill) + text +
         std::string(static_cast<size_t>(free - free / 2), fill);
}

std::string row(const std::string& label, int64_t value) { return fmt::format("{:<40} {:<10}\n", label, value); }
std::string row(const std::string& label, double value) { return fmt::format("{:<40} {:<10.2f}\n", label, value); }

// "99", "99.9".
std::string percent_word(double percent) {
  return percent == std::floor(percent) ? fmt::format("{:.0f}", percent) : python_float(percent);
}

Json json_float(double value) { return std::isinf(value) ? Json("inf") : Json(value); }

template <typename T>
Json optional_json(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json lists_of(const ServeRun& run) {
  Json lists = {{"input_lens", Json::array()}, {"output_lens", Json::array()},     {"ttfts", Json::array()},
                {"itls", Json::array()},       {"generated_texts", Json::array()}, {"errors", Json::array()}};
  for (const ServeRecord& record : run.records) {
    lists["input_lens"].push_back(record.num_prompt_tokens);
    lists["output_lens"].push_back(record.success ? record.num_output_tokens : 0);
    lists["ttfts"].push_back(record.ttft_s);
    lists["itls"].push_back(record.itl_s);
    lists["generated_texts"].push_back(record.text);
    lists["errors"].push_back(record.error);
  }
  return lists;
}

Json own_keys(const ServeSummary& summary, const ServeSetup& setup, const ServeRun& run) {
  Json intervals = Json::object();
  for (const ServeMetric metric : setup.metrics) {
    const ConfidenceInterval& interval = summary.of(metric).mean_95;
    intervals[fmt::format("mean_{}_ms", serve_metric_name(metric))] = {interval.low, interval.high};
  }
  Json server_lens = Json::array(), starts = Json::array(), latencies = Json::array();
  for (const ServeRecord& record : run.records) {
    server_lens.push_back(optional_json(record.num_server_prompt_tokens));
    starts.push_back(record.start_s);
    latencies.push_back(record.latency_s);
  }
  return {{"failed", summary.failed},
          {"confidence_95", std::move(intervals)},
          {"max_concurrent_requests", summary.most_running},
          {"output_tokens_by_second", tokens_by_second(run)},
          {"server_prompt_tokens", std::move(server_lens)},
          {"start_times", std::move(starts)},
          {"latencies", std::move(latencies)}};
}

}  // namespace

std::string serve_traffic_text(const ServeLoad& load) {
  return fmt::format("Traffic request rate: {}\nBurstiness factor: {} ({})\nMaximum request concurrency: {}\n",
                     python_float(load.request_rate), python_float(load.burstiness),
                     load.burstiness == 1.0 ? "Poisson process" : "Gamma distribution",
                     load.max_concurrency ? fmt::format("{}", *load.max_concurrency) : "None");
}

std::string serve_table(const ServeSummary& s, const ServeSetup& setup) {
  std::string out = centred(" Serving Benchmark Result ", '=') + "\n";
  out += row("Successful requests:", s.completed);
  out += row("Benchmark duration (s):", s.duration_s);
  out += row("Total input tokens:", s.total_input_tokens);
  out += row("Total generated tokens:", s.total_output_tokens);
  out += row("Request throughput (req/s):", s.request_throughput);
  if (s.request_goodput) out += row("Request goodput (req/s):", *s.request_goodput);
  out += row("Output token throughput (tok/s):", s.output_throughput);
  out += row("Total Token throughput (tok/s):", s.total_token_throughput);
  for (const ServeMetric metric : setup.metrics) {
    const ServeDistribution& d = s.of(metric);
    const MetricWords& words = words_of(metric);
    out += centred(words.title, '-') + "\n";
    out += row(fmt::format("Mean {} (ms):", words.label), d.mean);
    out += row(fmt::format("Median {} (ms):", words.label), d.median);
    for (const auto& [percent, value] : d.percentiles) {
      out += row(fmt::format("P{} {} (ms):", percent_word(percent), words.label), value);
    }
  }
  return out + std::string(kTableWidth, '=') + "\n";
}

std::string serve_notes(const ServeSummary& summary, const ServeSetup& setup, const ServeRun& run) {
  std::string out;
  if (summary.completed > 1) {
    out += "95 % intervals of the means (bootstrap over requests), ms:\n";
    for (const ServeMetric metric : setup.metrics) {
      const ServeDistribution& d = summary.of(metric);
      out += fmt::format("  {:<5}{:.2f} [{:.2f}, {:.2f}]\n", words_of(metric).label, d.mean, d.mean_95.low,
                         d.mean_95.high);
    }
  }
  const auto first = std::find_if(run.records.begin(), run.records.end(), [](const auto& one) { return !one.success; });
  if (first != run.records.end()) {
    out += fmt::format("{} of {} requests failed; the first: request {}: {}\n", summary.failed, run.records.size(),
                       first - run.records.begin(), first->error);
  }
  return out;
}

Json serve_json(const ServeSummary& s, const ServeSetup& setup, const ServeRun& run) {
  Json json = {{"date", setup.date},         {"backend", setup.backend},
               {"model_id", setup.model_id}, {"tokenizer_id", setup.tokenizer_id},
               {"best_of", setup.best_of},   {"num_prompts", run.records.size()}};
  for (const auto& [key, value] : setup.metadata) json[key] = value;
  json["request_rate"] = json_float(setup.load.request_rate);
  json["burstiness"] = setup.load.burstiness;
  json["max_concurrency"] = optional_json(setup.load.max_concurrency);
  json["duration"] = s.duration_s;
  json["completed"] = s.completed;
  json["total_input_tokens"] = s.total_input_tokens;
  json["total_output_tokens"] = s.total_output_tokens;
  json["request_throughput"] = s.request_throughput;
  json["request_goodput:"] = optional_json(s.request_goodput);  // the colon is vLLM's
  json["output_throughput"] = s.output_throughput;
  json["total_token_throughput"] = s.total_token_throughput;
  json.update(lists_of(run));
  for (const ServeMetric metric : setup.metrics) {
    const ServeDistribution& d = s.of(metric);
    const char* name = serve_metric_name(metric);
    json[fmt::format("mean_{}_ms", name)] = d.mean;
    json[fmt::format("median_{}_ms", name)] = d.median;
    json[fmt::format("std_{}_ms", name)] = d.std;
    for (const auto& [percent, value] : d.percentiles) {
      json[fmt::format("p{}_{}_ms", percent_word(percent), name)] = value;
    }
  }
  json["hadal"] = own_keys(s, setup, run);
  return json;
}

std::string serve_records_jsonl(const ServeRun& run) {
  std::string out;
  for (size_t i = 0; i < run.records.size(); ++i) {
    const ServeRecord& record = run.records[i];
    out += dump_json({{"request", i},
                      {"success", record.success},
                      {"error", record.error},
                      {"start_s", record.start_s},
                      {"ttft_s", record.ttft_s},
                      {"latency_s", record.latency_s},
                      {"prompt_tokens", record.num_prompt_tokens},
                      {"server_prompt_tokens", optional_json(record.num_server_prompt_tokens)},
                      {"asked_tokens", record.num_asked_tokens},
                      {"output_tokens", record.num_output_tokens},
                      {"itl_s", record.itl_s},
                      {"text", record.text},
                      {"reasoning", record.reasoning}}) +
           "\n";
  }
  return out;
}

std::string serve_result_name(const ServeSetup& setup) {
  std::string model = setup.model_id;
  while (model.ends_with('/')) model.pop_back();
  model.erase(0, model.rfind('/') + 1);
  const std::string concurrency =
      setup.load.max_concurrency ? fmt::format("-concurrency{}", *setup.load.max_concurrency) : "";
  return fmt::format("{}-{}qps{}-{}-{}.json", setup.backend, python_float(setup.load.request_rate), concurrency, model,
                     setup.date);
}

}  // namespace hadal
