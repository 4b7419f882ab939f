// hadal bench latency: prefill and decode steps of one model, each row beside the read bandwidth of that moment.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "bench/loaded_model.h"
#include "bench/report.h"

namespace hadal {

struct LatencyOptions {
  ModelFlags model;
  std::vector<int64_t> prefill_tokens = {128, 512, 2048, 8192};
  std::vector<int64_t> batches = {1, 2, 4, 8, 16, 32};
  std::vector<int64_t> depths = {0, 4096, 16384, 32768};
  int64_t repetitions = 5;
  int64_t max_num_batched_tokens = 2048;
  double ceiling_seconds = 8;  // how long to look for the machine's ceilings
  uint64_t seed = 1;
};

// Loads, samples a first token, measures the ceilings, then row after row: for each repetition a sample of the read
// bandwidth, some steps, another sample. Progress on stderr. Rows that the model or the memory has no room for are left
// out with a note. Errors: kInvalidArgument for options out of range; those of loading, probing and forward().
Expected<BenchReport> run_latency(const LatencyOptions& options);

}  // namespace hadal
