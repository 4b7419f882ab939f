// The engine's metrics under vLLM's names: those of its V0 server, its V1 server and today's side by side, so that any
// dashboard finds its own. Definitions are vLLM's; README.md lists them.
#pragma once

#include <array>
#include <string>

#include "base/metrics.h"
#include "engine/engine.h"

namespace hadal {

struct ModelFacts;

// The same value under its old and its new names.
template <typename Metric>
struct MetricNames {
  std::array<Metric*, 3> all{};
  template <typename... Args>
  void each(void (Metric::*change)(Args...), std::type_identity_t<Args>... args) const {
    for (Metric* metric : all) {
      if (metric != nullptr) (metric->*change)(args...);
    }
  }
};

// Registered at once; changed from any thread.
struct EngineMetrics {
  EngineMetrics(MetricsRegistry* registry, const std::string& model_name, const ModelFacts& facts);

  void copy(const EngineStats& stats);
  void count_step(const StepRecord& step);

  Gauge* running;
  Gauge* waiting;
  Gauge* waiting_for_capacity;
  MetricNames<Gauge> cache_usage;
  Gauge* cache_hit_rate;  // -1: the cache is off
  MetricNames<Counter> cache_queries;
  MetricNames<Counter> cache_hits;
  Counter* preemptions;
  Counter* prompt_tokens;
  Counter* prompt_tokens_cached;
  Counter* prompt_tokens_computed;
  Counter* prompt_tokens_from_cache;
  Counter* generation_tokens;
  Counter* success_stop;
  Counter* success_length;
  Counter* success_abort;
  Counter* success_error;
  Histogram* iteration_tokens;
  Histogram* first_token;
  MetricNames<Histogram> token_gap;
  Histogram* mean_token_time;
  Histogram* e2e;
  MetricNames<Histogram> queue;
  Histogram* prefill;
  Histogram* decode;
  Histogram* inference;
  Histogram* forward_ms;
  Histogram* execute_ms;
  Histogram* request_prompt_tokens;
  Histogram* request_generation_tokens;
  Histogram* request_max_generation_tokens;
  Histogram* request_computed_tokens;
  Histogram* params_max_tokens;
  Histogram* params_n;

  // Where steps spend their time: what `hadal bench live` reads.
  struct Phase {
    Counter* seconds;
    Counter* busy;
    Counter* weight_bytes;
    Counter* kv_bytes;
    Counter* flops;
  };
  std::array<Phase, kNumStepPhases> phases;
  Counter* steps;
  Counter* step_seconds;
  Counter* forward_seconds;
  Counter* planning_seconds;
  Counter* sampling_seconds;
  Counter* barriers;
  Counter* collectives;
  Counter* comm_bytes;
  Gauge* threads;

 private:
  struct Registrar;
  void add_gauges(const Registrar& add);
  void add_counters(const Registrar& add);
  void add_histograms(const Registrar& add, int64_t max_model_len);
  void add_step_counters(MetricsRegistry* registry);

  const bool has_prefix_cache_;
};

}  // namespace hadal
