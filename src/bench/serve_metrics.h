// The figures of a serving benchmark from the records of its requests. The formulas are those of vLLM's client.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "bench/serve_load.h"

namespace hadal {

enum class ServeMetric { kTtft, kTpot, kItl, kE2el };
inline constexpr size_t kNumServeMetrics = 4;

// "ttft", "tpot", "itl", "e2el".
const char* serve_metric_name(ServeMetric metric);

// "ttft,itl" in this order. Errors: kInvalidArgument naming the word.
Expected<std::vector<ServeMetric>> parse_serve_metrics(const std::string& text);

// A bound for one request: it is good when its value is at most this. kItl is no value of a request.
struct ServeSlo {
  ServeMetric metric = ServeMetric::kTtft;
  double limit_ms = 0;
};
// From "ttft:500". Errors: kInvalidArgument.
Expected<ServeSlo> parse_serve_slo(const std::string& text);

// Value and percentile (0 to 100) by linear interpolation between neighbours; 0 of no values. Sorts nothing: `sorted`
// ascends.
double percentile_of(std::span<const double> sorted, double percent);

struct ConfidenceInterval {
  double low = 0, high = 0;
};

// Over the successful requests; ITL over all their gaps. Milliseconds. Zeros when there is none.
struct ServeDistribution {
  double mean = 0, median = 0, std = 0;                // of the population
  std::vector<std::pair<double, double>> percentiles;  // percent, value
  ConfidenceInterval mean_95;  // bootstrap over requests (their gaps stay together), the same one every time
};

struct ServeSummary {
  double duration_s = 0;
  int64_t completed = 0, failed = 0;
  int64_t total_input_tokens = 0;  // nominal, of the completed ones
  int64_t total_output_tokens = 0;
  double request_throughput = 0;                            // 1/s
  std::optional<double> request_goodput;                    // 1/s, with bounds
  double output_throughput = 0;                             // tokens/s
  double total_token_throughput = 0;                        // tokens/s, input and output
  int64_t most_running = 0;                                 // requests under way at the same time
  std::array<ServeDistribution, kNumServeMetrics> metrics;  // by ServeMetric

  const ServeDistribution& of(ServeMetric metric) const { return metrics[static_cast<size_t>(metric)]; }
};

ServeSummary summarise_serve_run(const ServeRun& run, const std::vector<double>& percents,
                                 const std::vector<ServeSlo>& slos);

// Output tokens in each second of the run, the last one possibly cut. A request's tokens are spread evenly over its
// chunks.
std::vector<double> tokens_by_second(const ServeRun& run);

}  // namespace hadal
