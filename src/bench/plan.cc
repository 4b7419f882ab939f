#include "bench/plan.h"

#include <algorithm>
#include <cmath>

namespace hadal {
namespace {

constexpr int64_t kTileTokens = 256;    // of the expanded attention form
constexpr int64_t kContextStep = 1024;  // of max_context_tokens
constexpr int64_t kUnlimitedSequences = 1 << 20;
constexpr double kExchangesPerLayer = 2;  // after attention, after the MLP
constexpr double kBf16Bytes = 2;
// Element-wise work of a layer (residuals, norms, RoPE, activations, gathering rows of experts) reads and writes about
// this many F32 vectors of hidden_size per token.
constexpr double kRowVectorsPerLayer = 10;
constexpr double kF32Bytes = 4;

WeightLayout layout_of(const Machine& machine) {
  return {.num_ranks = machine.num_devices,
          .expert_parallel = machine.expert_parallel,
          .kv_b_bytes = machine.kv_b_bytes,
          .kv_element_bytes = machine.kv_element_bytes};
}

double multiply_efficiency(const Efficiency& efficiency, StepPhase phase) {
  if (phase == StepPhase::kAttention) return efficiency.attention;
  return phase == StepPhase::kExperts ? efficiency.experts : efficiency.dense;
}

double num_tokens(const StepShape& shape) {
  double tokens = 0;
  for (const SequenceCost& sequence : shape.sequences) tokens += static_cast<double>(sequence.num_tokens);
  return tokens;
}

// Expected sum over the experts of a rank of the slower of reading an expert and multiplying its tokens, whose number
// is binomial: E sum_n P(n) max(b / R, n f / F). Few tokens more than average cost time, few less save none.
double routed_seconds(const RoutedCost& cost, double tokens, double read_rate, double multiply_rate) {
  const double p = cost.visit_probability;
  const double read_s = cost.expert_bytes / read_rate, token_s = cost.token_flops / multiply_rate;
  if (p >= 1) return cost.num_experts * std::max(read_s, tokens * token_s);
  const double none = std::pow(1 - p, tokens);
  double probability = none, below = 0, tokens_below = 0;  // of at most read_s / token_s tokens
  for (double n = 0; n <= tokens && n * token_s <= read_s; ++n) {
    below += probability;
    tokens_below += n * probability;
    probability *= (tokens - n) / (n + 1) * p / (1 - p);
  }
  const double expert_s = read_s * (below - none) + token_s * (tokens * p - tokens_below);
  return cost.num_experts * cost.imbalance * expert_s;
}

double activation_bytes(const ModelConfig& config, const Machine& machine, int64_t context_tokens) {
  const int64_t tokens = machine.chunk_tokens > 0 ? std::min(machine.chunk_tokens, context_tokens) : context_tokens;
  const double per_token = machine.activation_bytes_per_token > 0
                               ? machine.activation_bytes_per_token
                               : kActivationVectors * kBf16Bytes * static_cast<double>(config.hidden_size);
  return static_cast<double>(tokens) * per_token;
}

// What is left for the cache when prompts of context_tokens run.
double kv_room(const ModelConfig& config, const Machine& machine, double weight_bytes, int64_t context_tokens) {
  const double free_bytes = machine.memory_bytes - weight_bytes;
  return free_bytes * (free_bytes > 0 ? 1 - machine.reserved_share : 1) -
         activation_bytes(config, machine, context_tokens);
}

}  // namespace

double step_seconds(const ModelConfig& config, const Machine& machine, const StepShape& shape) {
  const StepProfile cost = step_cost(config, shape, layout_of(machine));
  const double layers = static_cast<double>(config.num_hidden_layers);
  const double row_bytes = num_tokens(shape) * static_cast<double>(config.hidden_size);
  const double read_rate = machine.read_bytes_per_s * machine.efficiency.read;
  double moe_layers = 0, seconds = 0;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) moe_layers += config.is_moe_layer(layer) ? 1 : 0;
  for (size_t i = 0; i < kNumStepPhases; ++i) {
    const StepPhase phase = static_cast<StepPhase>(i);
    const PhaseCost& phase_cost = cost.of(phase);
    double bytes = phase_cost.weight_bytes + phase_cost.kv_bytes;
    if (phase == StepPhase::kNorms) bytes += layers * kRowVectorsPerLayer * kF32Bytes * row_bytes;
    double flops = phase_cost.flops;
    const double multiply_rate = machine.bf16_flops * multiply_efficiency(machine.efficiency, phase);
    if (phase == StepPhase::kExperts && moe_layers > 0) {
      const double tokens = num_tokens(shape);
      const RoutedCost routed = routed_cost(config, tokens, layout_of(machine));
      seconds += moe_layers * routed_seconds(routed, tokens, read_rate, multiply_rate);
      bytes -= moe_layers * routed.distinct * routed.expert_bytes;  // what is left are shared experts
      flops -= moe_layers * routed.visits * routed.token_flops;
    }
    seconds += std::max(bytes / read_rate, flops / multiply_rate);
  }
  seconds += layers * machine.syncs_per_layer * machine.sync_s;
  if (machine.exchange_bytes_per_s > 0 && machine.num_devices > 1) {
    seconds += layers * kExchangesPerLayer * kBf16Bytes * row_bytes / machine.exchange_bytes_per_s;
  }
  return seconds;
}

double prefill_seconds(const ModelConfig& config, const Machine& machine, int64_t prompt_tokens) {
  const int64_t chunk = machine.chunk_tokens > 0 ? machine.chunk_tokens : prompt_tokens + kTileTokens;
  double seconds = 0;
  for (const StepShape& step : prefill_shapes(prompt_tokens, chunk, kTileTokens)) {
    seconds += step_seconds(config, machine, step);
  }
  return seconds;
}

MachinePlan plan_machine(const ModelConfig& config, const Machine& machine, const PlanRequest& request) {
  MachinePlan plan;
  plan.machine = machine;
  plan.weight_bytes = weight_bytes_per_rank(config, layout_of(machine));
  plan.kv_bytes_per_token = kv_bytes_per_token_on_rank(config, layout_of(machine));
  plan.activation_bytes = activation_bytes(config, machine, request.context_tokens);
  plan.kv_room_bytes = kv_room(config, machine, plan.weight_bytes, request.context_tokens);
  const bool limited = machine.memory_bytes > 0;

  for (int64_t context = kContextStep; context <= config.max_position_embeddings; context += kContextStep) {
    const double need = plan.kv_bytes_per_token * static_cast<double>(context);
    if (limited && need > kv_room(config, machine, plan.weight_bytes, context)) break;
    plan.max_context_tokens = context;
  }
  const double sequence_bytes = plan.kv_bytes_per_token * static_cast<double>(request.context_tokens);
  plan.max_concurrency = kUnlimitedSequences;
  if (limited) {
    plan.max_concurrency = static_cast<int64_t>(
        std::min(static_cast<double>(kUnlimitedSequences), std::max(0.0, plan.kv_room_bytes / sequence_bytes)));
  }
  plan.fits = plan.max_concurrency >= request.concurrency;
  if (machine.load_bytes_per_s > 0) plan.load_s = checkpoint_bytes(config) / machine.load_bytes_per_s;

  for (const int64_t batch : kPlanBatches) {
    const auto rate = [&](int64_t depth) {
      return static_cast<double>(batch) / step_seconds(config, machine, decode_shape(batch, depth));
    };
    plan.decode.push_back({batch, rate(0), rate(request.context_tokens - 1)});
  }
  for (const int64_t prompt : kPlanPrompts) plan.ttft.push_back({prompt, prefill_seconds(config, machine, prompt)});
  return plan;
}

Json plan_to_json(const MachinePlan& plan) {
  Json decode = Json::array(), ttft = Json::array();
  for (const DecodeRate& rate : plan.decode) {
    decode.push_back({{"batch", rate.batch},
                      {"short_tokens_per_s", rate.short_tokens_per_s},
                      {"full_tokens_per_s", rate.full_tokens_per_s}});
  }
  for (const FirstTokenTime& time : plan.ttft) {
    ttft.push_back({{"prompt_tokens", time.prompt_tokens}, {"seconds", time.seconds}});
  }
  Json out = {{"machine", machine_to_json(plan.machine)},
              {"weight_bytes", plan.weight_bytes},
              {"kv_bytes_per_token", plan.kv_bytes_per_token},
              {"activation_bytes", plan.activation_bytes},
              {"kv_room_bytes", plan.kv_room_bytes},
              {"max_context_tokens", plan.max_context_tokens},
              {"max_concurrency", plan.max_concurrency},
              {"fits", plan.fits},
              {"load_s", plan.load_s}};
  out["decode"] = std::move(decode);
  out["ttft"] = std::move(ttft);
  return out;
}

}  // namespace hadal
