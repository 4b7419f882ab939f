#include "bench/serve_metrics.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <random>

#include "base/names.h"

namespace hadal {
namespace {

constexpr const char* kNames[kNumServeMetrics] = {"ttft", "tpot", "itl", "e2el"};
constexpr double kMsPerS = 1e3;
constexpr int kNumResamples = 1000;
constexpr uint32_t kResampleSeed = 1;

// Seconds per token after the first; 0 for answers of one token.
double tpot_s(const ServeRecord& record) {
  if (record.num_output_tokens <= 1) return 0;
  return (record.latency_s - record.ttft_s) / static_cast<double>(record.num_output_tokens - 1);
}

// The values that one request adds to a metric, in ms.
std::vector<double> values_of(const ServeRecord& record, ServeMetric metric) {
  switch (metric) {
    case ServeMetric::kTtft:
      return {record.ttft_s * kMsPerS};
    case ServeMetric::kTpot:
      if (record.num_output_tokens <= 1) return {};
      return {tpot_s(record) * kMsPerS};
    case ServeMetric::kItl: {
      std::vector<double> values(record.itl_s);
      for (double& value : values) value *= kMsPerS;
      return values;
    }
    case ServeMetric::kE2el:
      return {record.latency_s * kMsPerS};
  }
  return {};
}

// Of the mean over all values, resampling whole requests.
ConfidenceInterval bootstrap_mean(const std::vector<std::pair<double, size_t>>& sums) {
  if (sums.empty()) return {};
  std::mt19937 generator(kResampleSeed);
  std::vector<double> means;
  for (int round = 0; round < kNumResamples; ++round) {
    double sum = 0;
    size_t count = 0;
    for (size_t i = 0; i < sums.size(); ++i) {
      // The high bits scaled: no bias that 2^-32 would not bound.
      const auto& [part, size] = sums[(uint64_t{generator()} * sums.size()) >> 32];
      sum += part;
      count += size;
    }
    if (count > 0) means.push_back(sum / static_cast<double>(count));
  }
  std::sort(means.begin(), means.end());
  return {percentile_of(means, 2.5), percentile_of(means, 97.5)};
}

ServeDistribution distribution_of(const ServeRun& run, ServeMetric metric, const std::vector<double>& percents) {
  std::vector<double> all;
  std::vector<std::pair<double, size_t>> sums;  // of each request that has values
  for (const ServeRecord& record : run.records) {
    if (!record.success) continue;
    const std::vector<double> values = values_of(record, metric);
    if (values.empty()) continue;
    all.insert(all.end(), values.begin(), values.end());
    sums.emplace_back(std::accumulate(values.begin(), values.end(), 0.0), values.size());
  }
  ServeDistribution out;
  std::sort(all.begin(), all.end());
  const auto count = static_cast<double>(all.size());
  if (!all.empty()) out.mean = std::accumulate(all.begin(), all.end(), 0.0) / count;
  double squares = 0;
  for (const double value : all) squares += (value - out.mean) * (value - out.mean);
  if (!all.empty()) out.std = std::sqrt(squares / count);
  out.median = percentile_of(all, 50);
  for (const double percent : percents) out.percentiles.emplace_back(percent, percentile_of(all, percent));
  out.mean_95 = bootstrap_mean(sums);
  return out;
}

bool is_good(const ServeRecord& record, const std::vector<ServeSlo>& slos) {
  return std::all_of(slos.begin(), slos.end(), [&](const ServeSlo& slo) {
    const double value_s = slo.metric == ServeMetric::kTtft   ? record.ttft_s
                           : slo.metric == ServeMetric::kTpot ? tpot_s(record)
                                                              : record.latency_s;
    return value_s * kMsPerS <= slo.limit_ms;
  });
}

int64_t most_running(const ServeRun& run) {
  std::vector<std::pair<double, int>> changes;
  for (const ServeRecord& record : run.records) {
    if (record.latency_s <= 0) continue;
    changes.emplace_back(record.start_s, 1);
    changes.emplace_back(record.start_s + record.latency_s, -1);
  }
  std::sort(changes.begin(), changes.end());  // at the same time ends come first
  int64_t running = 0, most = 0;
  for (const auto& [when, change] : changes) most = std::max(most, running += change);
  return most;
}

}  // namespace

const char* serve_metric_name(ServeMetric metric) { return kNames[static_cast<size_t>(metric)]; }

Expected<std::vector<ServeMetric>> parse_serve_metrics(const std::string& text) {
  std::vector<ServeMetric> metrics;
  for (size_t at = 0; at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const std::string word = text.substr(at, comma - at);
    const auto found = std::find(std::begin(kNames), std::end(kNames), word);
    if (found == std::end(kNames)) {
      return make_error(ErrorCode::kInvalidArgument, "metric '{}': must be one of ttft, tpot, itl, e2el", word);
    }
    metrics.push_back(static_cast<ServeMetric>(found - std::begin(kNames)));
    at = comma + 1;
  }
  return metrics;
}

Expected<ServeSlo> parse_serve_slo(const std::string& text) {
  const size_t colon = std::min(text.find(':'), text.size());
  const std::string name = text.substr(0, colon), value = text.substr(std::min(colon + 1, text.size()));
  double limit_ms = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), limit_ms);
  const auto found = std::find(std::begin(kNames), std::end(kNames), name);
  const auto metric = static_cast<ServeMetric>(found - std::begin(kNames));
  const bool is_number = error == std::errc() && end == value.data() + value.size() && !value.empty();
  if (found == std::end(kNames) || metric == ServeMetric::kItl || !is_number || !(limit_ms >= 0)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "goodput '{}': must be NAME:MILLISECONDS with NAME one of ttft, tpot, e2el", text);
  }
  return ServeSlo{metric, limit_ms};
}

double percentile_of(std::span<const double> sorted, double percent) {
  if (sorted.empty()) return 0;
  const double at = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (at - static_cast<double>(below));
}

ServeSummary summarise_serve_run(const ServeRun& run, const std::vector<double>& percents,
                                 const std::vector<ServeSlo>& slos) {
  ServeSummary out{.duration_s = run.duration_s};
  int64_t num_good = 0;
  for (const ServeRecord& record : run.records) {
    ++(record.success ? out.completed : out.failed);
    if (!record.success) continue;
    out.total_input_tokens += record.num_prompt_tokens;
    out.total_output_tokens += record.num_output_tokens;
    num_good += is_good(record, slos);
  }
  const double seconds = std::max(run.duration_s, 1e-9);
  out.request_throughput = static_cast<double>(out.completed) / seconds;
  if (!slos.empty()) out.request_goodput = static_cast<double>(num_good) / seconds;
  out.output_throughput = static_cast<double>(out.total_output_tokens) / seconds;
  out.total_token_throughput = static_cast<double>(out.total_input_tokens + out.total_output_tokens) / seconds;
  out.most_running = most_running(run);
  for (size_t i = 0; i < kNumServeMetrics; ++i) {
    out.metrics[i] = distribution_of(run, static_cast<ServeMetric>(i), percents);
  }
  return out;
}

std::vector<double> tokens_by_second(const ServeRun& run) {
  constexpr double kMostSeconds = 1e6;
  std::vector<double> tokens(static_cast<size_t>(std::clamp(std::ceil(run.duration_s), 1.0, kMostSeconds)));
  for (const ServeRecord& record : run.records) {
    if (!record.success) continue;
    const double share = static_cast<double>(record.num_output_tokens) / static_cast<double>(record.itl_s.size() + 1);
    double when = record.start_s + record.ttft_s;
    for (size_t i = 0; i <= record.itl_s.size(); ++i) {
      tokens[std::min(static_cast<size_t>(std::max(when, 0.0)), tokens.size() - 1)] += share;
      if (i < record.itl_s.size()) when += record.itl_s[i];
    }
  }
  return tokens;
}

}  // namespace hadal
