// hadal bench throughput: all requests at once through the real engine, without HTTP and text. Definitions of the
// times are those of vLLM's benchmark: TTFT from submission to the first token, TPOT the mean time of a request's other
// tokens, ITL the time between two of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "bench/loaded_model.h"
#include "bench/report.h"

namespace hadal {

struct ThroughputOptions {
  ModelFlags model;
  int64_t num_prompts = 64;
  int64_t input_len = 128;
  int64_t output_len = 64;
  int64_t max_num_seqs = 32;
  int64_t max_num_batched_tokens = 512;
  int64_t block_size = 64;
  uint64_t seed = 1;
};

struct LatencySummary {
  double mean = 0, median = 0, p99 = 0;  // seconds
};
// Percentiles by linear interpolation, as numpy's. Zeros when there are no values.
LatencySummary summarise(std::vector<double> seconds);
// 0 <= share <= 1. Requires sorted, not empty.
double percentile(const std::vector<double>& sorted, double share);

struct ThroughputReport {
  HostFacts host;
  Json model, flags;
  int64_t num_completed = 0, num_failed = 0;
  int64_t input_tokens = 0, output_tokens = 0;
  double seconds = 0;  // first submission to last token
  LatencySummary ttft, tpot, itl, e2e;
  int64_t num_steps = 0;
  double step_seconds = 0, planning_seconds = 0;
  LossShares shares{};  // of the engine's steps
  StepProfile profile;
};

Expected<ThroughputReport> run_throughput(const ThroughputOptions& options);
Json throughput_json(const ThroughputReport& report);
std::string throughput_text(const ThroughputReport& report);

}  // namespace hadal
