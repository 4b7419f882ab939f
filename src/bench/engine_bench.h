// hadal bench engine: what the engine itself costs, with a model that computes nothing: planning and committing a step,
// the queue's length, and sampling.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "bench/report.h"

namespace hadal {

struct EngineBenchOptions {
  int64_t num_sequences = 32;
  int64_t num_steps = 400;
  std::vector<int64_t> queue_lengths = {10, 100, 1000, 10'000};
  int64_t vocab_size = 129'280;
  std::string isa = "auto";  // whose row passes sample
};

struct EngineBenchRow {
  std::string name;
  std::string kind;  // "step", "queue", "sampling"
  Spread seconds;
  double goal = 0;   // for `value`; 0: none
  double value = 0;  // what the goal is about: microseconds, or a ratio
  std::string unit;  // of value
};

struct EngineBenchReport {
  HostFacts host;
  Json flags;
  std::vector<EngineBenchRow> rows;
};

// Errors: kInvalidArgument for options out of range; as select_kernels(); what the engine says otherwise.
Expected<EngineBenchReport> run_engine_bench(const EngineBenchOptions& options);
Json engine_report_json(const EngineBenchReport& report);
std::string engine_report_table(const EngineBenchReport& report);

}  // namespace hadal
