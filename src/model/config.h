// The checked hyper-parameters of a DeepseekV3ForCausalLM model. Defaults and their source: configuration_deepseek.py
// of the published checkpoints. Every value that this program cannot run exactly as meant is an error, never a guess.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/hf_config.h"
#include "kernels/moe_router.h"

namespace hadal {

// rope_scaling of type "yarn".
struct YarnConfig {
  double factor = 1;  // > 0
  int64_t original_max_position_embeddings = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 1;
  double mscale_all_dim = 0;
};

struct ModelConfig {
  std::string model_type;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_nextn_predict_layers = 0;  // MTP layers, stored behind the main ones
  int64_t intermediate_size = 0;
  int64_t max_position_embeddings = 0;
  float rms_norm_eps = 0;
  // q_a_layernorm and kv_a_layernorm use their class default, whatever rms_norm_eps says (modeling_deepseek.py).
  float latent_norm_eps = 1e-6F;
  bool tie_word_embeddings = false;  // lm_head is embed_tokens

  int64_t num_attention_heads = 0;
  int64_t q_lora_rank = 0;  // 0: one q_proj in place of q_a_proj, q_a_layernorm, q_b_proj
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0;
  int64_t qk_rope_head_dim = 0;
  int64_t v_head_dim = 0;

  double rope_theta = 0;
  std::optional<YarnConfig> yarn;

  int64_t first_k_dense_replace = 0;
  int64_t moe_layer_freq = 1;
  int64_t moe_intermediate_size = 0;
  int64_t n_shared_experts = 0;  // one fused MLP of n_shared_experts * moe_intermediate_size
  RouterConfig router;           // n_routed_experts is 0 when no layer is MoE

  bool fp8_weights = false;  // quantization_config present: 128 x 128 block scales
  // A per-channel checkpoint (no weight_block_size): one scale a row, and maybe static scales of the inputs.
  bool fp8_row_scales = false;
  bool static_input_scales = false;  // "X.input_scale" F32 [1] beside every FP8 weight
  bool ue8m0_scales = false;

  // "moe_layer_freq = 1": keys that config.json does not give, with the value taken.
  std::vector<std::string> defaulted;

  bool is_moe_layer(int64_t layer) const;
  int64_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  int64_t shared_intermediate_size() const { return n_shared_experts * moe_intermediate_size; }
};

// Appends every problem and returns the values that could be used; unusable when problems were added.
ModelConfig make_model_config_collecting(const HfConfig& hf, std::vector<Error>& problems);

// The error is the first problem: kInvalidArgument (missing, out of range, contradicting) or kUnsupported, naming the
// key, its value and what is supported.
Expected<ModelConfig> make_model_config(const HfConfig& hf);

}  // namespace hadal
