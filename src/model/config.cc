#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string_view>
#include <utility>

namespace hadal {
namespace {

// Bounds that keep every product of two dimensions, and every byte count of the weight plan, inside int64_t.
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxPositions = int64_t{1} << 30;
// Routed experts over all layers; Kimi-K2 has 23,040. Bounds the length of the weight plan.
constexpr int64_t kMaxTotalExperts = int64_t{1} << 18;

class ConfigReader {
 public:
  ConfigReader(const HfConfig& hf, std::vector<Error>& problems) : hf_(hf), problems_(problems) {}

  ModelConfig read() {
    check_architecture();
    read_sizes();
    read_attention();
    read_rope();
    read_moe();
    read_quantization();
    return std::move(config_);
  }

 private:
  template <typename... Args>
  void refuse(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
    problems_.push_back({code, fmt::format(format, std::forward<Args>(args)...)});
  }

  template <typename T>
  T value_or_default(const char* key, const std::optional<T>& given, T fallback) {
    if (given) return *given;
    config_.defaulted.push_back(fmt::format("{} = {}", key, fallback));
    return fallback;
  }

  int64_t in_range(const char* key, int64_t value, int64_t lowest, int64_t highest) {
    if (value < lowest || value > highest) {
      refuse(ErrorCode::kInvalidArgument, "{} = {}: supported are {} to {}", key, value, lowest, highest);
      return lowest;
    }
    return value;
  }

  int64_t required(const char* key, const std::optional<int64_t>& given, int64_t highest) {
    if (!given) {
      refuse(ErrorCode::kInvalidArgument, "{} is missing: it has no default", key);
      return 1;
    }
    return in_range(key, *given, 1, highest);
  }

  double positive(const char* key, double value) {
    if (!std::isfinite(value) || value <= 0) {
      refuse(ErrorCode::kInvalidArgument, "{} = {}: must be a positive number", key, value);
      return 1;
    }
    return value;
  }

  void require_name(const char* key, const std::optional<std::string>& given, const char* supported) {
    const std::string value = value_or_default(key, given, std::string(supported));
    if (value != supported) {
      refuse(ErrorCode::kUnsupported, "{} = \"{}\": only \"{}\" is supported", key, value, supported);
    }
  }

  void check_architecture() {
    constexpr const char* kArchitecture = "DeepseekV3ForCausalLM";
    config_.model_type = hf_.model_type.value_or("");
    if (hf_.architectures.empty()) {
      refuse(ErrorCode::kInvalidArgument, "architectures is missing: expected [\"{}\"]", kArchitecture);
    } else if (hf_.architectures.size() != 1 || hf_.architectures[0] != kArchitecture) {
      refuse(ErrorCode::kUnsupported, "architectures = [\"{}\"{}]: only [\"{}\"] is supported", hf_.architectures[0],
             hf_.architectures.size() > 1 ? ", ..." : "", kArchitecture);
    }
  }

  void read_sizes() {
    config_.vocab_size = required("vocab_size", hf_.vocab_size, kMaxVocab);
    config_.hidden_size = required("hidden_size", hf_.hidden_size, kMaxWidth);
    config_.num_hidden_layers = required("num_hidden_layers", hf_.num_hidden_layers, kMaxLayers);
    config_.intermediate_size = required("intermediate_size", hf_.intermediate_size, kMaxWidth);
    config_.max_position_embeddings = required("max_position_embeddings", hf_.max_position_embeddings, kMaxPositions);
    config_.num_nextn_predict_layers =
        in_range("num_nextn_predict_layers",
                 value_or_default<int64_t>("num_nextn_predict_layers", hf_.num_nextn_predict_layers, 0), 0, 16);
    config_.rms_norm_eps =
        static_cast<float>(positive("rms_norm_eps", value_or_default("rms_norm_eps", hf_.rms_norm_eps, 1e-6)));
    config_.tie_word_embeddings = value_or_default("tie_word_embeddings", hf_.tie_word_embeddings, false);
    require_name("hidden_act", hf_.hidden_act, "silu");
    if (hf_.torch_dtype && *hf_.torch_dtype != "bfloat16") {
      refuse(ErrorCode::kUnsupported, "torch_dtype = \"{}\": only \"bfloat16\" is supported", *hf_.torch_dtype);
    }
  }

  void read_attention() {
    config_.num_attention_heads = required("num_attention_heads", hf_.num_attention_heads, 1 << 14);
    config_.q_lora_rank =
        in_range("q_lora_rank", value_or_default<int64_t>("q_lora_rank", hf_.q_lora_rank, 1536), 0, kMaxWidth);
    config_.kv_lora_rank = required("kv_lora_rank", hf_.kv_lora_rank, 1 << 14);
    config_.qk_nope_head_dim = required("qk_nope_head_dim", hf_.qk_nope_head_dim, 1 << 12);
    config_.qk_rope_head_dim = required("qk_rope_head_dim", hf_.qk_rope_head_dim, 1 << 12);
    config_.v_head_dim = required("v_head_dim", hf_.v_head_dim, 1 << 12);
    if (config_.qk_rope_head_dim % 2 != 0) {
      refuse(ErrorCode::kInvalidArgument, "qk_rope_head_dim = {}: must be even, RoPE turns pairs",
             config_.qk_rope_head_dim);
    }
    if (hf_.qk_head_dim && *hf_.qk_head_dim != config_.qk_head_dim()) {
      refuse(ErrorCode::kInvalidArgument, "qk_head_dim = {}: qk_nope_head_dim + qk_rope_head_dim is {}",
             *hf_.qk_head_dim, config_.qk_head_dim());
    }
    for (const auto& [name, per_head] :
         {std::pair{"qk_nope_head_dim + qk_rope_head_dim", config_.qk_head_dim()},
          std::pair{"v_head_dim", config_.v_head_dim},
          std::pair{"qk_nope_head_dim + v_head_dim", config_.qk_nope_head_dim + config_.v_head_dim}}) {
      if (config_.num_attention_heads * per_head > kMaxWidth) {
        refuse(ErrorCode::kInvalidArgument, "num_attention_heads x ({}) = {}: supported are at most {}", name,
               config_.num_attention_heads * per_head, kMaxWidth);
      }
    }
    if (hf_.attention_bias.value_or(false)) {
      refuse(ErrorCode::kUnsupported, "attention_bias = true: only false is supported");
    }
  }

  void read_rope() {
    config_.rope_theta = positive("rope_theta", value_or_default("rope_theta", hf_.rope_theta, 10000.0));
    if (config_.rope_theta == 1.0)
      refuse(ErrorCode::kInvalidArgument, "rope_theta = 1: all frequencies would be equal");
    if (!hf_.rope_interleave.value_or(true)) {
      refuse(ErrorCode::kUnsupported, "rope_interleave = false: only interleaved pairs are supported");
    }
    if (!hf_.rope_scaling) return;
    const HfRopeScaling& scaling = *hf_.rope_scaling;
    const std::string prefix = scaling.json_name.empty() ? "rope_scaling" : scaling.json_name;
    if (!scaling.type) {
      // rope_parameters without a type only moves rope_theta.
      if (scaling.factor || scaling.original_max_position_embeddings) {
        refuse(ErrorCode::kInvalidArgument, "{} has no type: supported are \"yarn\" and \"default\"", prefix);
      }
      return;
    }
    if (*scaling.type == "default" || *scaling.type == "none") return;
    if (*scaling.type != "yarn") {
      refuse(ErrorCode::kUnsupported, "{}.type = \"{}\": supported are \"yarn\" and \"default\"", prefix,
             *scaling.type);
      return;
    }
    read_yarn(scaling, prefix);
  }

  void read_yarn(const HfRopeScaling& scaling, const std::string& prefix) {
    const auto key = [&](const char* name) { return prefix + "." + name; };
    YarnConfig yarn;
    if (!scaling.factor) {
      refuse(ErrorCode::kInvalidArgument, "{} is missing: it has no default", key("factor"));
    } else {
      yarn.factor = positive(key("factor").c_str(), *scaling.factor);
    }
    yarn.original_max_position_embeddings = required(key("original_max_position_embeddings").c_str(),
                                                     scaling.original_max_position_embeddings, kMaxPositions);
    const auto number = [&](const char* name, const std::optional<double>& given, double fallback) {
      return value_or_default(key(name).c_str(), given, fallback);
    };
    yarn.beta_fast = positive(key("beta_fast").c_str(), number("beta_fast", scaling.beta_fast, 32));
    yarn.beta_slow = positive(key("beta_slow").c_str(), number("beta_slow", scaling.beta_slow, 1));
    yarn.mscale = number("mscale", scaling.mscale, 1);
    yarn.mscale_all_dim = number("mscale_all_dim", scaling.mscale_all_dim, 0);
    for (const auto& [name, value] : {std::pair{"mscale", yarn.mscale}, {"mscale_all_dim", yarn.mscale_all_dim}}) {
      if (!std::isfinite(value) || value < 0) {
        refuse(ErrorCode::kInvalidArgument, "{} = {}: must not be negative", key(name), value);
      }
    }
    config_.yarn = yarn;
  }

  void read_moe() {
    RouterConfig& router = config_.router;
    if (!hf_.n_routed_experts) {
      refuse(ErrorCode::kInvalidArgument, "n_routed_experts is missing: it has no default (null means a dense model)");
      return;
    }
    config_.moe_layer_freq =
        in_range("moe_layer_freq", value_or_default<int64_t>("moe_layer_freq", hf_.moe_layer_freq, 1), 1, kMaxLayers);
    router.n_routed_experts = in_range("n_routed_experts", *hf_.n_routed_experts, 0, kMaxRoutedExperts);
    if (router.n_routed_experts == 0) return;
    config_.first_k_dense_replace =
        in_range("first_k_dense_replace",
                 value_or_default<int64_t>("first_k_dense_replace", hf_.first_k_dense_replace, 3), 0, kMaxLayers);
    if (config_.first_k_dense_replace > config_.num_hidden_layers) {
      refuse(ErrorCode::kInvalidArgument, "first_k_dense_replace = {}: the model has num_hidden_layers = {}",
             config_.first_k_dense_replace, config_.num_hidden_layers);
    }
    config_.moe_intermediate_size = required("moe_intermediate_size", hf_.moe_intermediate_size, kMaxWidth);
    if (!hf_.n_shared_experts) {
      refuse(ErrorCode::kInvalidArgument, "n_shared_experts is missing: it has no default (null means none)");
    } else {
      config_.n_shared_experts = in_range("n_shared_experts", *hf_.n_shared_experts, 0, 64);
    }
    if (config_.shared_intermediate_size() > kMaxWidth) {
      refuse(ErrorCode::kInvalidArgument, "n_shared_experts x moe_intermediate_size = {}: supported are at most {}",
             config_.shared_intermediate_size(), kMaxWidth);
    }
    read_routing();
  }

  void read_routing() {
    RouterConfig& router = config_.router;
    const int64_t layers = config_.num_hidden_layers + config_.num_nextn_predict_layers;
    if (layers * router.n_routed_experts > kMaxTotalExperts) {
      refuse(ErrorCode::kInvalidArgument, "n_routed_experts x layers = {}: supported are at most {}",
             layers * router.n_routed_experts, kMaxTotalExperts);
    }
    router.n_group = in_range("n_group", value_or_default<int64_t>("n_group", hf_.n_group, 8), 1, kMaxRoutedExperts);
    router.topk_group =
        in_range("topk_group", value_or_default<int64_t>("topk_group", hf_.topk_group, 4), 1, kMaxRoutedExperts);
    router.num_experts_per_tok = required("num_experts_per_tok", hf_.num_experts_per_tok, kMaxRoutedExperts);
    if (router.n_routed_experts % router.n_group != 0) {
      refuse(ErrorCode::kInvalidArgument, "n_group = {}: must divide n_routed_experts = {}", router.n_group,
             router.n_routed_experts);
    }
    if (router.topk_group > router.n_group) {
      refuse(ErrorCode::kInvalidArgument, "topk_group = {}: there are only n_group = {} groups", router.topk_group,
             router.n_group);
    }
    const int64_t kept = router.n_routed_experts / router.n_group * router.topk_group;
    if (router.num_experts_per_tok > kept) {
      refuse(ErrorCode::kInvalidArgument,
             "num_experts_per_tok = {}: the topk_group = {} kept groups hold only {} experts",
             router.num_experts_per_tok, router.topk_group, kept);
    }
    require_name("topk_method", hf_.topk_method, "noaux_tc");
    require_name("scoring_func", hf_.scoring_func, "sigmoid");
    router.norm_topk_prob = value_or_default("norm_topk_prob", hf_.norm_topk_prob, true);
    if (!hf_.routed_scaling_factor) {
      refuse(ErrorCode::kInvalidArgument, "routed_scaling_factor is missing: it has no default");
    } else {
      router.routed_scaling_factor = static_cast<float>(positive("routed_scaling_factor", *hf_.routed_scaling_factor));
    }
  }

  void read_quantization() {
    if (!hf_.quantization_config) return;
    const HfQuantizationConfig& quantization = *hf_.quantization_config;
    config_.fp8_weights = true;
    const auto require = [&](const char* name, const std::optional<std::string>& given, const char* supported) {
      const std::string key = fmt::format("quantization_config.{}", name);
      if (!given) {
        refuse(ErrorCode::kInvalidArgument, "{} is missing: only \"{}\" is supported", key, supported);
      } else {
        require_name(key.c_str(), given, supported);
      }
    };
    require("quant_method", quantization.quant_method, "fp8");
    require("fmt", quantization.fmt, "e4m3");
    const std::vector<int64_t>& block = quantization.weight_block_size;
    config_.fp8_row_scales = block.empty();
    config_.static_input_scales = config_.fp8_row_scales && quantization.activation_scheme == "static";
    if (!config_.static_input_scales) require("activation_scheme", quantization.activation_scheme, "dynamic");
    if (!block.empty() && block != std::vector<int64_t>{kWeightBlock, kWeightBlock}) {
      refuse(ErrorCode::kUnsupported, "quantization_config.weight_block_size = [{}]: only [128, 128] is supported",
             fmt::join(block, ", "));
    }
    if (quantization.scale_fmt) {
      config_.ue8m0_scales = true;
      require_name("quantization_config.scale_fmt", quantization.scale_fmt, "ue8m0");
    }
  }

  static constexpr int64_t kWeightBlock = 128;

  const HfConfig& hf_;
  std::vector<Error>& problems_;
  ModelConfig config_;
};

}  // namespace

bool ModelConfig::is_moe_layer(int64_t layer) const {
  return router.n_routed_experts > 0 && layer >= first_k_dense_replace && layer % moe_layer_freq == 0;
}

ModelConfig make_model_config_collecting(const HfConfig& hf, std::vector<Error>& problems) {
  return ConfigReader(hf, problems).read();
}

Expected<ModelConfig> make_model_config(const HfConfig& hf) {
  std::vector<Error> problems;
  ModelConfig config = make_model_config_collecting(hf, problems);
  if (!problems.empty()) return tl::unexpected<Error>(std::move(problems.front()));
  return config;
}

}  // namespace hadal
