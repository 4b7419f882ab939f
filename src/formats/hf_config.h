// config.json of a DeepseekV3ForCausalLM folder as a plain struct. Says what is written there and nothing else: no
// defaults, no cross-checks between keys (the model layer owns both). Wrong types, numbers outside the bounds that the
// reader states in its table, and unknown keys among the rope, quantization, expert, routing and attention settings are
// errors; other unknown keys are only listed. A key whose value is null counts as not given, except where said.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hadal {

// "rope_scaling", or "rope_parameters" of newer transformers ("rope_type" for "type", rope_theta inside).
struct HfRopeScaling {
  std::string json_name;  // which of the two spellings the file uses
  std::optional<std::string> type;
  std::optional<double> factor;
  std::optional<int64_t> original_max_position_embeddings;
  std::optional<double> beta_fast;
  std::optional<double> beta_slow;
  std::optional<double> mscale;
  std::optional<double> mscale_all_dim;
  std::optional<double> rope_theta;  // also copied to HfConfig::rope_theta
};

struct HfQuantizationConfig {
  std::optional<std::string> quant_method;
  std::optional<std::string> fmt;
  std::optional<std::string> activation_scheme;
  std::optional<std::string> scale_fmt;
  std::vector<int64_t> weight_block_size;  // [rows, cols]; empty when not given
};

struct ConfigKey {
  enum class Status {
    kUsed,     // has a field in HfConfig
    kIgnored,  // known, without effect on inference
    kUnknown,
  };
  std::string name;      // dotted path: "rope_scaling.factor"
  std::string raw_json;  // the value as compact JSON, shortened when long
  Status status = Status::kUnknown;
};

struct HfConfig {
  std::vector<std::string> architectures;  // empty when not given
  std::optional<std::string> model_type;

  std::optional<int64_t> vocab_size;
  std::optional<int64_t> hidden_size;
  std::optional<int64_t> num_hidden_layers;
  std::optional<int64_t> num_nextn_predict_layers;
  std::optional<int64_t> intermediate_size;
  std::optional<int64_t> max_position_embeddings;
  std::optional<std::string> hidden_act;
  std::optional<double> rms_norm_eps;
  std::optional<bool> tie_word_embeddings;
  std::optional<std::string> torch_dtype;  // or "dtype"

  std::optional<int64_t> num_attention_heads;
  std::optional<int64_t> num_key_value_heads;  // no meaning in MLA
  std::optional<int64_t> q_lora_rank;          // 0 when written null or 0: a plain q_proj
  std::optional<int64_t> kv_lora_rank;
  std::optional<int64_t> qk_nope_head_dim;
  std::optional<int64_t> qk_rope_head_dim;
  std::optional<int64_t> qk_head_dim;  // redundant: nope + rope
  std::optional<int64_t> v_head_dim;
  std::optional<bool> attention_bias;

  std::optional<double> rope_theta;  // top level or inside rope_parameters
  std::optional<bool> rope_interleave;
  std::optional<HfRopeScaling> rope_scaling;

  std::optional<int64_t> first_k_dense_replace;
  std::optional<int64_t> moe_layer_freq;
  std::optional<int64_t> moe_intermediate_size;
  std::optional<int64_t> n_routed_experts;  // 0 when written null: no MoE layers
  std::optional<int64_t> n_shared_experts;  // 0 when written null
  std::optional<int64_t> num_experts_per_tok;
  std::optional<int64_t> n_group;
  std::optional<int64_t> topk_group;
  std::optional<std::string> topk_method;
  std::optional<std::string> scoring_func;
  std::optional<bool> norm_topk_prob;
  std::optional<double> routed_scaling_factor;

  std::optional<HfQuantizationConfig> quantization_config;

  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_id;  // written as one id or a list; empty when not given
  std::optional<int64_t> pad_token_id;

  std::vector<ConfigKey> keys;  // every key met, in file order
};

// Parses the text of config.json. The error is the first problem.
Expected<HfConfig> parse_hf_config(std::string_view text);
// The same, but appends every problem and returns the fields that could be read.
HfConfig parse_hf_config_collecting(std::string_view text, std::vector<Error>& problems);

// Reads DIR/config.json; errors begin with its path.
Expected<HfConfig> load_hf_config(const std::filesystem::path& dir);
HfConfig load_hf_config_collecting(const std::filesystem::path& dir, std::vector<Error>& problems);

// Every key HfConfig has a field for, dotted ("rope_scaling.factor"), in the order of the reader's table: the model
// layer prints which of them were defaulted.
const std::vector<std::string>& hf_config_used_keys();

}  // namespace hadal
