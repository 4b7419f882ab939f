#include "formats/hf_config.h"

#include <algorithm>
#include <array>

#include "base/file.h"
#include "base/json.h"
#include "base/names.h"
#include "formats/json_fields.h"
#include "formats/message_text.h"

namespace hadal {
namespace {

constexpr uint64_t kMaxFileBytes = 1 << 20;

// Bounds are far above every known model and low enough that products of a few stay in 64 bits.
constexpr IntRange kWidth = {1, 1 << 24};
constexpr IntRange kRankOrOff = {0, 1 << 24};
constexpr IntRange kVocab = {1, 1 << 24};
constexpr IntRange kHeads = {1, 1 << 16};
constexpr IntRange kHeadDim = {1, 1 << 16};
constexpr IntRange kLayers = {1, 1024};
constexpr IntRange kLayersOrNone = {0, 1024};
constexpr IntRange kExperts = {1, 4096};
constexpr IntRange kExpertsOrNone = {0, 4096};
constexpr IntRange kPositions = {1, INT32_MAX};
constexpr NumberRange kPositive = {0.0, 1e12, true};
constexpr NumberRange kNotNegative = {0.0, 1e12};

// Known keys without effect on inference: training settings, bookkeeping of transformers, and what MLA makes redundant.
constexpr std::array kIgnoredKeys = {
    "_attn_implementation",
    "_name_or_path",
    "add_cross_attention",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "aux_loss_alpha",
    "ep_size",
    "hadal_convert",
    "head_dim",
    "initializer_range",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pretraining_tp",
    "return_dict",
    "router_aux_loss_coef",
    "seq_aux",
    "transformers_version",
    "use_cache",
};

// A key that holds one of these belongs to the settings where an unknown one must not be skipped.
constexpr std::array kStrictFamilies = {
    "rope",   "rotary",  "yarn", "mscale",  "quant",         "fp8",    "expert",  "moe",       "router",
    "routed", "n_group", "topk", "scoring", "dense_replace", "nextn",  "mtp",     "attention", "attn",
    "lora",   "qk_",     "kv_",  "head",    "window",        "index_", "scaling", "sparse",
};

bool is_in_strict_family(const std::string& name) {
  return std::any_of(kStrictFamilies.begin(), kStrictFamilies.end(),
                     [&](const char* part) { return name.find(part) != std::string::npos; });
}

bool is_ignored(const std::string& name) {
  return std::find(kIgnoredKeys.begin(), kIgnoredKeys.end(), name) != kIgnoredKeys.end();
}

// For keys where null is a statement of its own: 0.
JsonField<HfConfig> int_field_null_is_zero(const char* name, std::optional<int64_t> HfConfig::*member, IntRange range) {
  return {name, [=](const std::string& label, const Json& value, HfConfig& out, std::vector<Error>& problems) {
            if (value.is_null()) {
              out.*member = 0;
            } else {
              read_int(label, value, range, out.*member, problems);
            }
          }};
}

void read_architectures(const std::string& name, const Json& value, HfConfig& out, std::vector<Error>& problems) {
  if (value.is_null()) return;
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), [](const Json& x) { return x.is_string(); })) {
    problems.push_back(
        {ErrorCode::kInvalidArgument, fmt::format("{} is {}, expected a list of strings", name, show_json(value))});
    return;
  }
  out.architectures = value.get<std::vector<std::string>>();
}

// Two spellings of one setting: both may be given when they agree.
template <typename T>
void merge_spelling(const std::string& name, const std::optional<T>& value, std::optional<T>& out,
                    std::vector<Error>& problems) {
  if (!value) return;
  if (out && *out != *value) {
    problems.push_back(
        {ErrorCode::kInvalidArgument,
         fmt::format("{} says {}, another key of the same meaning says {}; keep one", name, *value, *out)});
    return;
  }
  out = value;
}

void read_torch_dtype(const std::string& name, const Json& value, HfConfig& out, std::vector<Error>& problems) {
  std::optional<std::string> dtype;
  read_string(name, value, dtype, problems);
  merge_spelling(name, dtype, out.torch_dtype, problems);
}

const std::vector<JsonField<HfConfig>>& top_fields() {
  using C = HfConfig;
  static const std::vector<JsonField<C>> table = {
      {"architectures", read_architectures},
      string_field("model_type", &C::model_type),
      int_field("vocab_size", &C::vocab_size, kVocab),
      int_field("hidden_size", &C::hidden_size, kWidth),
      int_field("num_hidden_layers", &C::num_hidden_layers, kLayers),
      int_field("num_nextn_predict_layers", &C::num_nextn_predict_layers, kLayersOrNone),
      int_field("intermediate_size", &C::intermediate_size, kWidth),
      int_field("max_position_embeddings", &C::max_position_embeddings, kPositions),
      string_field("hidden_act", &C::hidden_act),
      number_field("rms_norm_eps", &C::rms_norm_eps, {0.0, 1.0, true}),
      bool_field("tie_word_embeddings", &C::tie_word_embeddings),
      {"torch_dtype", read_torch_dtype},
      {"dtype", read_torch_dtype},
      int_field("num_attention_heads", &C::num_attention_heads, kHeads),
      int_field("num_key_value_heads", &C::num_key_value_heads, kHeads),
      int_field_null_is_zero("q_lora_rank", &C::q_lora_rank, kRankOrOff),
      int_field("kv_lora_rank", &C::kv_lora_rank, kWidth),
      int_field("qk_nope_head_dim", &C::qk_nope_head_dim, kHeadDim),
      int_field("qk_rope_head_dim", &C::qk_rope_head_dim, kHeadDim),
      int_field("qk_head_dim", &C::qk_head_dim, kHeadDim),
      int_field("v_head_dim", &C::v_head_dim, kHeadDim),
      bool_field("attention_bias", &C::attention_bias),
      number_field("rope_theta", &C::rope_theta, kPositive),
      bool_field("rope_interleave", &C::rope_interleave),
      int_field("first_k_dense_replace", &C::first_k_dense_replace, kLayersOrNone),
      int_field("moe_layer_freq", &C::moe_layer_freq, kLayers),
      int_field("moe_intermediate_size", &C::moe_intermediate_size, kWidth),
      int_field_null_is_zero("n_routed_experts", &C::n_routed_experts, kExpertsOrNone),
      int_field_null_is_zero("n_shared_experts", &C::n_shared_experts, kExpertsOrNone),
      int_field("num_experts_per_tok", &C::num_experts_per_tok, kExperts),
      int_field("n_group", &C::n_group, kExperts),
      int_field("topk_group", &C::topk_group, kExperts),
      string_field("topk_method", &C::topk_method),
      string_field("scoring_func", &C::scoring_func),
      bool_field("norm_topk_prob", &C::norm_topk_prob),
      number_field("routed_scaling_factor", &C::routed_scaling_factor, kPositive),
      int_field("bos_token_id", &C::bos_token_id, kTokenIdRange),
      ints_field("eos_token_id", &C::eos_token_id, kTokenIdRange, true),
      int_field("pad_token_id", &C::pad_token_id, kTokenIdRange),
  };
  return table;
}

const std::vector<JsonField<HfRopeScaling>>& rope_fields() {
  using R = HfRopeScaling;
  const auto read_type = [](const std::string& name, const Json& value, R& out, std::vector<Error>& problems) {
    std::optional<std::string> type;
    read_string(name, value, type, problems);
    merge_spelling(name, type, out.type, problems);
  };
  static const std::vector<JsonField<R>> table = {
      {"type", read_type},
      {"rope_type", read_type},
      number_field("factor", &R::factor, kPositive),
      int_field("original_max_position_embeddings", &R::original_max_position_embeddings, kPositions),
      number_field("beta_fast", &R::beta_fast, kPositive),
      number_field("beta_slow", &R::beta_slow, kPositive),
      number_field("mscale", &R::mscale, kNotNegative),
      number_field("mscale_all_dim", &R::mscale_all_dim, kNotNegative),
      number_field("rope_theta", &R::rope_theta, kPositive),
  };
  return table;
}

const std::vector<JsonField<HfQuantizationConfig>>& quantization_fields() {
  using Q = HfQuantizationConfig;
  static const std::vector<JsonField<Q>> table = {
      string_field("quant_method", &Q::quant_method),
      string_field("fmt", &Q::fmt),
      string_field("activation_scheme", &Q::activation_scheme),
      string_field("scale_fmt", &Q::scale_fmt),
      ints_field("weight_block_size", &Q::weight_block_size, {1, 1 << 24}, false),
  };
  return table;
}

template <typename T>
std::vector<std::string> names_of(const std::vector<JsonField<T>>& fields) {
  std::vector<std::string> names;
  for (const auto& field : fields) names.push_back(field.name);
  return names;
}

class ConfigReader {
 public:
  explicit ConfigReader(std::vector<Error>& problems) : problems_(problems) {}

  HfConfig run(const Json& json) {
    for (const auto& [key, value] : json.items()) {
      if (key == "rope_scaling" || key == "rope_parameters") {
        read_rope(key, value);
      } else if (key == "quantization_config") {
        read_quantization(key, value);
      } else if (const auto* field = find_field(top_fields(), key)) {
        note(key, value, ConfigKey::Status::kUsed);
        field->read(key, value, config_, problems_);
      } else if (is_ignored(key)) {
        note(key, value, ConfigKey::Status::kIgnored);
      } else {
        read_unknown(key, key, value, is_in_strict_family(key), top_names());
      }
    }
    if (config_.rope_scaling) {
      merge_spelling(config_.rope_scaling->json_name + ".rope_theta", config_.rope_scaling->rope_theta,
                     config_.rope_theta, problems_);
    }
    return std::move(config_);
  }

 private:
  static std::vector<std::string> top_names() {
    auto names = names_of(top_fields());
    names.insert(names.end(), {"rope_scaling", "rope_parameters", "quantization_config"});
    return names;
  }

  void note(const std::string& path, const Json& value, ConfigKey::Status status) {
    config_.keys.push_back({path, show_json(value), status});
  }

  void read_unknown(const std::string& path, const std::string& key, const Json& value, bool is_error,
                    const std::vector<std::string>& known) {
    note(path, value, ConfigKey::Status::kUnknown);
    if (!is_error || value.is_null()) return;
    const std::string near = closest_name(key, known);
    problems_.push_back(
        {ErrorCode::kUnsupported,
         fmt::format("unknown key {} = {}: it may change how the model computes{}", quote_name(path), show_json(value),
                     near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near))});
  }

  // The members of a nested object; every key in there matters.
  template <typename T>
  void read_object(const std::string& parent, const Json& object, const std::vector<JsonField<T>>& fields, T& out) {
    for (const auto& [key, value] : object.items()) {
      const std::string path = fmt::format("{}.{}", parent, key);
      if (const auto* field = find_field(fields, key)) {
        note(path, value, ConfigKey::Status::kUsed);
        field->read(path, value, out, problems_);
      } else {
        read_unknown(path, key, value, true, names_of(fields));
      }
    }
  }

  // False for null (not given) and for what is no object (reported).
  bool is_given_object(const std::string& key, const Json& value) {
    if (value.is_object()) return true;
    note(key, value, ConfigKey::Status::kUsed);
    if (!value.is_null()) {
      problems_.push_back(
          {ErrorCode::kInvalidArgument, fmt::format("{} is {}, expected an object or null", key, show_json(value))});
    }
    return false;
  }

  void read_rope(const std::string& key, const Json& value) {
    if (!is_given_object(key, value)) return;
    if (config_.rope_scaling) {
      problems_.push_back(
          {ErrorCode::kInvalidArgument, "both rope_scaling and rope_parameters are given; keep the one that is right"});
    }
    HfRopeScaling rope;
    rope.json_name = key;
    read_object(key, value, rope_fields(), rope);
    config_.rope_scaling = std::move(rope);
  }

  void read_quantization(const std::string& key, const Json& value) {
    if (!is_given_object(key, value)) return;
    HfQuantizationConfig quantization;
    read_object(key, value, quantization_fields(), quantization);
    if (const auto& block = quantization.weight_block_size; !block.empty() && block.size() != 2) {
      problems_.push_back(
          {ErrorCode::kInvalidArgument,
           fmt::format("{}.weight_block_size has {} numbers, expected [rows, cols]", key, block.size())});
    }
    config_.quantization_config = std::move(quantization);
  }

  std::vector<Error>& problems_;
  HfConfig config_;
};

}  // namespace

HfConfig parse_hf_config_collecting(std::string_view text, std::vector<Error>& problems) {
  auto json = parse_json(text, {.max_bytes = kMaxFileBytes, .max_depth = 16, .refuse_duplicate_keys = true});
  if (!json) {
    problems.push_back(std::move(json).error());
    return {};
  }
  if (!json->is_object()) {
    problems.push_back({ErrorCode::kCorrupt, fmt::format("{} at the top, expected an object", json->type_name())});
    return {};
  }
  return ConfigReader(problems).run(*json);
}

Expected<HfConfig> parse_hf_config(std::string_view text) {
  std::vector<Error> problems;
  HfConfig config = parse_hf_config_collecting(text, problems);
  if (!problems.empty()) return tl::unexpected<Error>(std::move(problems.front()));
  return config;
}

HfConfig load_hf_config_collecting(const std::filesystem::path& dir, std::vector<Error>& problems) {
  const std::filesystem::path path = dir / "config.json";
  auto text = read_file(path, kMaxFileBytes);
  if (!text) {
    problems.push_back(std::move(text).error());
    return {};
  }
  std::vector<Error> found;
  HfConfig config = parse_hf_config_collecting(*text, found);
  for (Error& problem : found) problems.push_back(std::move(problem).in(path.string()));
  return config;
}

Expected<HfConfig> load_hf_config(const std::filesystem::path& dir) {
  std::vector<Error> problems;
  HfConfig config = load_hf_config_collecting(dir, problems);
  if (!problems.empty()) return tl::unexpected<Error>(std::move(problems.front()));
  return config;
}

const std::vector<std::string>& hf_config_used_keys() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all = names_of(top_fields());
    for (const std::string& name : names_of(rope_fields())) all.push_back("rope_scaling." + name);
    for (const std::string& name : names_of(quantization_fields())) all.push_back("quantization_config." + name);
    return all;
  }();
  return names;
}

}  // namespace hadal
