// The noaux_tc gate: which experts a token visits, with which weights (DeepSeek-V3 report section 2.1.2, HF
// modeling_deepseek.py MoEGate). FP32 throughout. One implementation for every ISA: routing must not depend on it.
#pragma once

#include <cstdint>

namespace hadal {

struct RouterConfig {
  int64_t n_routed_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t n_group = 1;     // divides n_routed_experts
  int64_t topk_group = 1;  // <= n_group
  bool norm_topk_prob = true;
  float routed_scaling_factor = 1;
};

inline constexpr int64_t kMaxRoutedExperts = 4096;

// logits: f32 [n_routed_experts], W_g x. bias: f32 [n_routed_experts] e_score_correction_bias, selects only.
// Writes expert_ids [num_experts_per_tok] in ascending id order and the weight of each. Ties: the lower index wins.
void route_token(const RouterConfig& config, const float* logits, const float* bias, int32_t* expert_ids,
                 float* weights);

}  // namespace hadal
