#include "bench/step_cost.h"

#include <algorithm>
#include <cmath>

#include "model/weight_plan.h"

namespace hadal {
namespace {

constexpr double kBlock = 128;     // edge of a weight scale block
constexpr double kScaleBytes = 4;  // F32
constexpr double kBf16Bytes = 2;
constexpr double kRouterBiasBytes = 4;

// [rows, cols] as the checkpoint stores a quantisable matrix.
double matrix_bytes(const ModelConfig& config, double rows, double cols) {
  if (!config.fp8_weights) return rows * cols * kBf16Bytes;
  return rows * cols + std::ceil(rows / kBlock) * std::ceil(cols / kBlock) * kScaleBytes;
}

// gate and up [width, hidden], down [hidden, width].
double mlp_bytes(const ModelConfig& config, double width, double hidden) {
  return 2 * matrix_bytes(config, width, hidden) + matrix_bytes(config, hidden, width);
}

// One step's sums. Matrices are given whole, with the number of ranks that share them.
class StepCounter {
 public:
  StepCounter(const ModelConfig& config, const StepShape& shape, const WeightLayout& layout)
      : config_(config), shape_(shape), layout_(layout), ranks_(layout.num_ranks) {
    for (const SequenceCost& sequence : shape.sequences) tokens_ += static_cast<double>(sequence.num_tokens);
  }

  StepProfile count() {
    profile_.num_steps = 1;
    if (tokens_ == 0) return profile_;
    const double hidden = static_cast<double>(config_.hidden_size);
    of(StepPhase::kEmbed).weight_bytes += tokens_ * hidden * kBf16Bytes / ranks_;
    for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      add_attention(hidden);
      if (config_.is_moe_layer(layer)) {
        add_moe(hidden);
      } else {
        add_mlp(StepPhase::kDense, static_cast<double>(config_.intermediate_size), hidden);
      }
      const double norm_width = 2 * hidden + static_cast<double>(config_.q_lora_rank + config_.kv_lora_rank);
      of(StepPhase::kNorms).weight_bytes += norm_width * kBf16Bytes;
    }
    if (shape_.logit_rows > 0) {
      const double elements = static_cast<double>(config_.vocab_size) * hidden;
      of(StepPhase::kNorms).weight_bytes += hidden * kBf16Bytes;
      of(StepPhase::kHead).weight_bytes += elements * kBf16Bytes / ranks_;
      of(StepPhase::kHead).flops += 2 * elements * static_cast<double>(shape_.logit_rows) / ranks_;
    }
    return profile_;
  }

 private:
  PhaseCost& of(StepPhase phase) { return profile_.of(phase); }

  void add_matrix(StepPhase phase, double rows, double cols, double ranks) {
    of(phase).weight_bytes += matrix_bytes(config_, rows, cols) / ranks;
    of(phase).flops += 2 * rows * cols * tokens_ / ranks;
  }

  void add_mlp(StepPhase phase, double width, double hidden) {
    of(phase).weight_bytes += mlp_bytes(config_, width, hidden) / ranks_;
    of(phase).flops += 2 * 3 * width * hidden * tokens_ / ranks_;
  }

  void add_attention(double hidden) {
    const double heads = static_cast<double>(config_.num_attention_heads);
    const double latent = static_cast<double>(config_.kv_lora_rank), q_lora = static_cast<double>(config_.q_lora_rank);
    const double rope = static_cast<double>(config_.qk_rope_head_dim);
    const double q_rows = heads * static_cast<double>(config_.qk_head_dim());
    const double value_cols = heads * static_cast<double>(config_.v_head_dim);
    if (config_.q_lora_rank == 0) {
      add_matrix(StepPhase::kDense, q_rows, hidden, ranks_);
    } else {
      add_matrix(StepPhase::kDense, q_lora, hidden, 1);
      add_matrix(StepPhase::kDense, q_rows, q_lora, ranks_);
    }
    add_matrix(StepPhase::kDense, latent + rope, hidden, 1);
    add_matrix(StepPhase::kDense, hidden, value_cols, ranks_);
    add_kv_b(heads * static_cast<double>(config_.qk_nope_head_dim + config_.v_head_dim), latent);
    for (const SequenceCost& sequence : shape_.sequences) add_pairs(sequence, heads / ranks_);
  }

  void add_kv_b(double rows, double cols) {
    const double bytes = layout_.kv_b_bytes > 0 ? layout_.kv_b_bytes * rows * cols : matrix_bytes(config_, rows, cols);
    of(StepPhase::kAttention).weight_bytes += bytes / ranks_;
    of(StepPhase::kAttention).flops += 2 * rows * cols * tokens_ / ranks_;
  }

  void add_pairs(const SequenceCost& sequence, double heads) {
    const double queries = static_cast<double>(sequence.num_tokens),
                 first = static_cast<double>(sequence.first_position);
    const double pairs = queries * first + queries * (queries + 1) / 2;
    const double row_bytes =
        static_cast<double>(config_.kv_lora_rank + config_.qk_rope_head_dim) * layout_.kv_element_bytes;
    const bool expanded = sequence.form == AttentionForm::kExpanded;
    const int64_t multiply_adds =
        expanded ? config_.qk_head_dim() + config_.v_head_dim : 2 * config_.kv_lora_rank + config_.qk_rope_head_dim;
    of(StepPhase::kAttention).flops += 2 * heads * pairs * static_cast<double>(multiply_adds);
    of(StepPhase::kAttention).kv_bytes += row_bytes * (expanded ? first + queries : pairs);
  }

  void add_moe(double hidden) {
    const double experts = static_cast<double>(config_.router.n_routed_experts);
    of(StepPhase::kRouting).weight_bytes += experts * (hidden * kBf16Bytes + kRouterBiasBytes);
    of(StepPhase::kRouting).flops += 2 * experts * hidden * tokens_;
    const RoutedCost routed = routed_cost(config_, tokens_, layout_);
    of(StepPhase::kExperts).weight_bytes += routed.distinct * routed.expert_bytes;
    of(StepPhase::kExperts).flops += routed.visits * routed.token_flops;
    if (config_.n_shared_experts > 0) {
      add_mlp(StepPhase::kExperts, static_cast<double>(config_.shared_intermediate_size()), hidden);
    }
  }

  const ModelConfig& config_;
  const StepShape& shape_;
  const WeightLayout& layout_;
  const double ranks_;
  double tokens_ = 0;
  StepProfile profile_;
};

enum class Sharing { kEveryRank, kShared, kKvB };

Sharing sharing_of(WeightRole role) {
  switch (role) {
    case WeightRole::kFinalNorm:
    case WeightRole::kInputNorm:
    case WeightRole::kPostAttentionNorm:
    case WeightRole::kQA:
    case WeightRole::kQANorm:
    case WeightRole::kKvA:
    case WeightRole::kKvANorm:
    case WeightRole::kRouter:
    case WeightRole::kRouterBias:
      return Sharing::kEveryRank;
    case WeightRole::kKvB:
      return Sharing::kKvB;
    default:
      return Sharing::kShared;
  }
}

double stored_bytes(const ModelConfig& config, const PlannedTensor& tensor) {
  if (tensor.dtype == WeightDType::kQuantisable) {
    return matrix_bytes(config, static_cast<double>(tensor.shape[0]), static_cast<double>(tensor.shape[1]));
  }
  return static_cast<double>(tensor.shape.num_elements()) *
         static_cast<double>(dtype_size_bytes(tensor.official_dtype(config.fp8_weights)));
}

}  // namespace

StepShape decode_shape(int64_t batch, int64_t depth) {
  StepShape shape;
  shape.sequences.assign(static_cast<size_t>(batch), {1, depth, AttentionForm::kAbsorbed});
  shape.logit_rows = batch;
  return shape;
}

std::vector<StepShape> prefill_shapes(int64_t prompt_tokens, int64_t chunk_tokens, int64_t tile_tokens) {
  const int64_t chunk = std::max(chunk_tokens / tile_tokens, int64_t{1}) * tile_tokens;
  const int64_t expanded_end = prompt_tokens / tile_tokens * tile_tokens;
  std::vector<StepShape> steps;
  for (int64_t begin = 0; begin < prompt_tokens; begin += chunk) {
    const int64_t end = std::min(begin + chunk, prompt_tokens), middle = std::clamp(expanded_end, begin, end);
    StepShape step;
    if (middle > begin) step.sequences.push_back({middle - begin, begin, AttentionForm::kExpanded});
    if (end > middle) step.sequences.push_back({end - middle, middle, AttentionForm::kAbsorbed});
    step.logit_rows = end == prompt_tokens ? 1 : 0;
    steps.push_back(std::move(step));
  }
  return steps;
}

double expected_distinct_experts(const RouterConfig& router, double tokens) {
  const double experts = static_cast<double>(router.n_routed_experts);
  if (experts == 0) return 0;
  return experts * (1 - std::pow(1 - static_cast<double>(router.num_experts_per_tok) / experts, tokens));
}

double expected_largest_share(double count, double bins, double bin_capacity) {
  if (bins <= 1) return std::min(count, bin_capacity);
  const double mean = count / bins;
  const double free_share = std::max(0.0, 1 - mean / bin_capacity);
  const double largest = mean + std::sqrt(2 * mean * free_share * std::log(bins));
  return std::min({std::max(largest, 1.0), bin_capacity, count});
}

RoutedCost routed_cost(const ModelConfig& config, double tokens, const WeightLayout& layout) {
  const double width = static_cast<double>(config.moe_intermediate_size);
  const double hidden = static_cast<double>(config.hidden_size), ranks = layout.num_ranks;
  const double experts = static_cast<double>(config.router.n_routed_experts);
  RoutedCost cost;
  if (experts == 0) return cost;
  const double slices = layout.expert_parallel ? 1 : ranks, groups = layout.expert_parallel ? ranks : 1;
  cost.expert_bytes = mlp_bytes(config, width, hidden) / slices;
  cost.token_flops = 2 * 3 * width * hidden / slices;
  cost.num_experts = experts / groups;
  cost.visit_probability = static_cast<double>(config.router.num_experts_per_tok) / experts;
  const double distinct = expected_distinct_experts(config.router, tokens);
  cost.distinct = expected_largest_share(distinct, groups, cost.num_experts);
  if (distinct > 0) cost.imbalance = cost.distinct / (distinct / groups);
  cost.visits = cost.imbalance * cost.num_experts * cost.visit_probability * tokens;
  return cost;
}

StepProfile step_cost(const ModelConfig& config, const StepShape& shape, const WeightLayout& layout) {
  return StepCounter(config, shape, layout).count();
}

double kv_bytes_per_token_on_rank(const ModelConfig& config, const WeightLayout& layout) {
  return static_cast<double>(config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim)) *
         layout.kv_element_bytes;
}

double weight_bytes_per_rank(const ModelConfig& config, const WeightLayout& layout) {
  const double ranks = layout.num_ranks;
  double total = 0;
  for (const PlannedTensor& tensor : weight_plan(config)) {
    if (tensor.layer >= config.num_hidden_layers) continue;
    double bytes = stored_bytes(config, tensor);
    const Sharing sharing = sharing_of(tensor.role);
    if (sharing == Sharing::kKvB && layout.kv_b_bytes > 0) {
      const double key_share = static_cast<double>(config.qk_nope_head_dim) /
                               static_cast<double>(config.qk_nope_head_dim + config.v_head_dim);
      bytes = static_cast<double>(tensor.shape.num_elements()) * layout.kv_b_bytes * (1 + key_share);
    }
    total += sharing == Sharing::kEveryRank ? bytes : bytes / ranks;
  }
  return total;
}

double checkpoint_bytes(const ModelConfig& config) {
  double total = 0;
  for (const PlannedTensor& tensor : weight_plan(config)) total += stored_bytes(config, tensor);
  return total;
}

}  // namespace hadal
