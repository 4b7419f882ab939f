// What a machine would do with a model, computed from shapes and rates: does it fit, how fast would it be. A model of
// time, not a simulation: a step takes, for each phase (routed experts: each expert), the slower of reading and
// multiplying on the busiest device, plus barriers and exchanges. Nothing is measured here. Used by `hadal plan`.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "bench/machine.h"
#include "bench/step_cost.h"
#include "model/config.h"

namespace hadal {

inline constexpr int64_t kPlanBatches[] = {1, 2, 4, 8, 16, 32, 64, 128};
inline constexpr int64_t kPlanPrompts[] = {512, 2048, 8192};  // tokens

struct PlanRequest {
  int64_t context_tokens = 32768;  // of each sequence, at most max_position_embeddings
  int64_t concurrency = 1;         // sequences at once
};

struct DecodeRate {
  int64_t batch = 0;
  double short_tokens_per_s = 0;  // all sequences together, caches nearly empty
  double full_tokens_per_s = 0;   // at the end of context_tokens
};

struct FirstTokenTime {
  int64_t prompt_tokens = 0;
  double seconds = 0;
};

// Bytes are those of one device.
struct MachinePlan {
  Machine machine;
  double weight_bytes = 0;
  double kv_bytes_per_token = 0;
  double activation_bytes = 0;       // of a prompt of context_tokens
  double kv_room_bytes = 0;          // what weights, reserve and activations leave; negative: they do not fit
  int64_t max_context_tokens = 0;    // of a single sequence, whole 1024s, at most max_position_embeddings; 0: none
  int64_t max_concurrency = 0;       // sequences of context_tokens
  bool fits = false;                 // context_tokens x concurrency
  double load_s = 0;                 // 0: unknown
  std::vector<DecodeRate> decode;    // of kPlanBatches
  std::vector<FirstTokenTime> ttft;  // of kPlanPrompts, one request alone
};

// Requires a config without problems and positive numbers in the request.
MachinePlan plan_machine(const ModelConfig& config, const Machine& machine, const PlanRequest& request);

// Seconds of one forward step.
double step_seconds(const ModelConfig& config, const Machine& machine, const StepShape& shape);

// Seconds from a prompt's first step to its first token, on an idle machine.
double prefill_seconds(const ModelConfig& config, const Machine& machine, int64_t prompt_tokens);

Json plan_to_json(const MachinePlan& plan);

}  // namespace hadal
