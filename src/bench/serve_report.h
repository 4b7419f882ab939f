// What a serving benchmark prints and writes: vLLM's table and JSON keys, to the letter.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "bench/serve_metrics.h"

namespace hadal {

// What the user asked for, as it is reported.
struct ServeSetup {
  std::string date;  // "20250131-235959", local time
  std::string backend, model_id, tokenizer_id;
  int64_t best_of = 1;
  ServeLoad load;
  std::vector<ServeMetric> metrics = {ServeMetric::kTtft, ServeMetric::kTpot, ServeMetric::kItl};  // to report
  std::vector<std::pair<std::string, std::string>> metadata;
};

// The lines before a run: rate, burstiness, concurrency.
std::string serve_traffic_text(const ServeLoad& load);

// The table.
std::string serve_table(const ServeSummary& summary, const ServeSetup& setup);

// Below the table, ours: 95 % intervals of the means, requests that failed.
std::string serve_notes(const ServeSummary& summary, const ServeSetup& setup, const ServeRun& run);

// One object. Keys of ours lie under "hadal".
Json serve_json(const ServeSummary& summary, const ServeSetup& setup, const ServeRun& run);

// One line for each request, as JSON.
std::string serve_records_jsonl(const ServeRun& run);

// "vllm-infqps-concurrency32-DeepSeek-R1-20250131-235959.json"; no slash in it.
std::string serve_result_name(const ServeSetup& setup);

}  // namespace hadal
