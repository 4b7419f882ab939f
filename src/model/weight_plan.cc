#include "model/weight_plan.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/names.h"
#include "tensor/block_scale.h"

namespace hadal {
namespace {

constexpr std::string_view kLayerPrefix = "model.layers.";

class PlanBuilder {
 public:
  explicit PlanBuilder(const ModelConfig& config) : config_(config) {}

  std::vector<PlannedTensor> build() {
    const int64_t vocab = config_.vocab_size, hidden = config_.hidden_size;
    add("model.embed_tokens.weight", {vocab, hidden}, WeightRole::kEmbedTokens, WeightDType::kBf16);
    for (layer_ = 0; layer_ < config_.num_hidden_layers; ++layer_) add_layer(config_.is_moe_layer(layer_));
    for (; layer_ < config_.num_hidden_layers + config_.num_nextn_predict_layers; ++layer_) {
      optional_ = true;
      add_layer(config_.router.n_routed_experts > 0);
      add_mtp();
    }
    optional_ = false;
    layer_ = -1;
    add("model.norm.weight", {hidden}, WeightRole::kFinalNorm, WeightDType::kBf16);
    if (!config_.tie_word_embeddings) {
      add("lm_head.weight", {vocab, hidden}, WeightRole::kLmHead, WeightDType::kBf16);
    }
    return std::move(plan_);
  }

 private:
  void add(std::string name, Shape shape, WeightRole role, WeightDType dtype, int64_t expert = -1) {
    plan_.push_back({std::move(name), shape, role, dtype, layer_, expert, optional_});
  }
  void in_layer(std::string_view suffix, Shape shape, WeightRole role, WeightDType dtype, int64_t expert = -1) {
    add(fmt::format("{}{}.{}.weight", kLayerPrefix, layer_, suffix), shape, role, dtype, expert);
  }
  void quantisable(std::string_view suffix, int64_t rows, int64_t cols, WeightRole role, int64_t expert = -1) {
    in_layer(suffix, {rows, cols}, role, WeightDType::kQuantisable, expert);
  }
  void norm(std::string_view suffix, int64_t dim, WeightRole role) {
    in_layer(suffix, {dim}, role, WeightDType::kBf16);
  }

  void add_layer(bool moe) {
    norm("input_layernorm", config_.hidden_size, WeightRole::kInputNorm);
    add_attention();
    norm("post_attention_layernorm", config_.hidden_size, WeightRole::kPostAttentionNorm);
    if (moe) {
      add_moe();
    } else {
      add_mlp("mlp", config_.intermediate_size, {WeightRole::kDenseGate, WeightRole::kDenseUp, WeightRole::kDenseDown});
    }
  }

  void add_attention() {
    const int64_t hidden = config_.hidden_size, heads = config_.num_attention_heads;
    const int64_t q_rows = heads * config_.qk_head_dim();
    if (config_.q_lora_rank == 0) {
      quantisable("self_attn.q_proj", q_rows, hidden, WeightRole::kQ);
    } else {
      quantisable("self_attn.q_a_proj", config_.q_lora_rank, hidden, WeightRole::kQA);
      norm("self_attn.q_a_layernorm", config_.q_lora_rank, WeightRole::kQANorm);
      quantisable("self_attn.q_b_proj", q_rows, config_.q_lora_rank, WeightRole::kQB);
    }
    quantisable("self_attn.kv_a_proj_with_mqa", config_.kv_lora_rank + config_.qk_rope_head_dim, hidden,
                WeightRole::kKvA);
    norm("self_attn.kv_a_layernorm", config_.kv_lora_rank, WeightRole::kKvANorm);
    quantisable("self_attn.kv_b_proj", heads * (config_.qk_nope_head_dim + config_.v_head_dim), config_.kv_lora_rank,
                WeightRole::kKvB);
    quantisable("self_attn.o_proj", hidden, heads * config_.v_head_dim, WeightRole::kO);
  }

  struct MlpRoles {
    WeightRole gate, up, down;
  };
  void add_mlp(const std::string& prefix, int64_t width, MlpRoles roles, int64_t expert = -1) {
    quantisable(prefix + ".gate_proj", width, config_.hidden_size, roles.gate, expert);
    quantisable(prefix + ".up_proj", width, config_.hidden_size, roles.up, expert);
    quantisable(prefix + ".down_proj", config_.hidden_size, width, roles.down, expert);
  }

  void add_moe() {
    const int64_t experts = config_.router.n_routed_experts;
    in_layer("mlp.gate", {experts, config_.hidden_size}, WeightRole::kRouter, WeightDType::kBf16);
    add(fmt::format("{}{}.mlp.gate.e_score_correction_bias", kLayerPrefix, layer_), {experts}, WeightRole::kRouterBias,
        WeightDType::kF32OrBf16);
    for (int64_t expert = 0; expert < experts; ++expert) {
      add_mlp(fmt::format("mlp.experts.{}", expert), config_.moe_intermediate_size,
              {WeightRole::kExpertGate, WeightRole::kExpertUp, WeightRole::kExpertDown}, expert);
    }
    if (config_.n_shared_experts > 0) {
      add_mlp("mlp.shared_experts", config_.shared_intermediate_size(),
              {WeightRole::kSharedGate, WeightRole::kSharedUp, WeightRole::kSharedDown});
    }
  }

  void add_mtp() {
    const int64_t vocab = config_.vocab_size, hidden = config_.hidden_size;
    in_layer("embed_tokens", {vocab, hidden}, WeightRole::kMtpEmbedTokens, WeightDType::kBf16);
    norm("enorm", hidden, WeightRole::kMtpEmbeddingNorm);
    norm("hnorm", hidden, WeightRole::kMtpHiddenNorm);
    in_layer("eh_proj", {hidden, 2 * hidden}, WeightRole::kMtpProjection, WeightDType::kBf16);
    norm("shared_head.norm", hidden, WeightRole::kMtpHeadNorm);
    in_layer("shared_head.head", {vocab, hidden}, WeightRole::kMtpHead, WeightDType::kBf16);
  }

  const ModelConfig& config_;
  std::vector<PlannedTensor> plan_;
  int64_t layer_ = -1;
  bool optional_ = false;
};

std::optional<int64_t> layer_of_name(std::string_view name) {
  if (!name.starts_with(kLayerPrefix)) return std::nullopt;
  name.remove_prefix(kLayerPrefix.size());
  int64_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return layer;
}

class CheckpointChecker {
 public:
  CheckpointChecker(const ModelConfig& config, const std::vector<PlannedTensor>& plan, const Checkpoint& checkpoint,
                    CheckpointState state, std::vector<Error>& problems)
      : config_(config), plan_(plan), checkpoint_(checkpoint), state_(state), problems_(problems) {
    by_name_.reserve(plan.size());
    for (const PlannedTensor& planned : plan) by_name_.emplace(planned.name, &planned);
  }

  void check() {
    check_planned();
    check_unexpected();
  }

 private:
  template <typename... Args>
  void refuse(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
    problems_.push_back({code, fmt::format(format, std::forward<Args>(args)...)});
  }

  // An MTP layer may be absent altogether; a part of one is damage.
  bool mtp_layer_present(int64_t layer) const {
    return checkpoint_.find(fmt::format("{}{}.eh_proj.weight", kLayerPrefix, layer)) != nullptr ||
           checkpoint_.find(fmt::format("{}{}.input_layernorm.weight", kLayerPrefix, layer)) != nullptr;
  }

  bool may_be_absent(const PlannedTensor& planned) const {
    if (state_ == CheckpointState::kDamaged) return true;
    if (!planned.optional) return false;
    const bool is_copy = planned.role == WeightRole::kMtpEmbedTokens || planned.role == WeightRole::kMtpHead;
    return is_copy || !mtp_layer_present(planned.layer);
  }

  void check_planned() {
    for (const PlannedTensor& planned : plan_) {
      const Checkpoint::Entry* entry = checkpoint_.find(planned.name);
      if (entry == nullptr) {
        if (!may_be_absent(planned)) refuse(ErrorCode::kNotFound, "tensor {} is missing", planned.name);
        continue;
      }
      if (entry->info.shape != planned.shape) {
        refuse(ErrorCode::kCorrupt, "tensor {}: shape {}, config.json asks for {}", planned.name,
               entry->info.shape.to_string(), planned.shape.to_string());
      }
      check_dtype(planned, entry->info.dtype);
    }
  }

  void check_dtype(const PlannedTensor& planned, DType found) {
    switch (planned.dtype) {
      case WeightDType::kBf16:
        // convert_for_g2.py turns eh_proj into FP8 without a scale; MTP layers are not loaded.
        if (planned.role == WeightRole::kMtpProjection && found == DType::kF8E4M3) return;
        if (found != DType::kBF16) refuse_dtype(planned, found, "BF16");
        return;
      case WeightDType::kF32OrBf16:
        if (found != DType::kF32 && found != DType::kBF16) refuse_dtype(planned, found, "F32");
        return;
      case WeightDType::kQuantisable:
        break;
    }
    if (found == DType::kF8E4M3) {
      check_scale(planned);
    } else if (found != DType::kBF16) {
      refuse_dtype(planned, found, config_.fp8_weights ? "F8_E4M3 or BF16" : "BF16");
    }
    check_gate_matches_up(planned, found);
  }

  void refuse_dtype(const PlannedTensor& planned, DType found, const char* wanted) {
    refuse(ErrorCode::kUnsupported, "tensor {}: dtype {}, supported is {}", planned.name, dtype_name(found), wanted);
  }

  void check_scale(const PlannedTensor& planned) {
    if (!config_.fp8_weights) {
      // One report: every FP8 tensor of the checkpoint would say the same.
      if (!std::exchange(reported_fp8_without_config_, true)) {
        refuse(ErrorCode::kInvalidArgument,
               "tensor {}: dtype F8_E4M3, but config.json has no quantization_config (further ones not listed)",
               planned.name);
      }
      return;
    }
    const Checkpoint::Entry* scale = checkpoint_.find(planned.scale_name());
    if (scale == nullptr) {
      if (state_ == CheckpointState::kDamaged) return;
      refuse(ErrorCode::kNotFound, "tensor {} is missing: {} is F8_E4M3 and needs its scale", planned.scale_name(),
             planned.name);
      return;
    }
    if (planned.shape.rank() != 2) return;
    const Shape wanted = config_.fp8_row_scales ? Shape{planned.shape[0]}
                                                : BlockScaleLayout{}.scale_shape(planned.shape[0], planned.shape[1]);
    if (scale->info.shape != wanted) {
      refuse(ErrorCode::kCorrupt, "tensor {}: shape {}, the {} of {} ask for {}", planned.scale_name(),
             scale->info.shape.to_string(), config_.fp8_row_scales ? "rows" : "128 x 128 blocks",
             planned.shape.to_string(), wanted.to_string());
    }
    if (scale->info.dtype != DType::kF32) {
      refuse(ErrorCode::kUnsupported, "tensor {}: dtype {}, supported is F32", planned.scale_name(),
             dtype_name(scale->info.dtype));
    }
    if (config_.static_input_scales) check_input_scale(planned);
  }

  void check_input_scale(const PlannedTensor& planned) {
    const std::string name = planned.input_scale_name();
    const Checkpoint::Entry* scale = checkpoint_.find(name);
    if (scale == nullptr) {
      if (state_ == CheckpointState::kDamaged) return;
      refuse(ErrorCode::kNotFound, "tensor {} is missing: activation_scheme is static", name);
    } else if (scale->info.dtype != DType::kF32 || scale->info.shape != Shape{1}) {
      refuse(ErrorCode::kUnsupported, "tensor {}: {} {}, expected F32 [1]", name, dtype_name(scale->info.dtype),
             scale->info.shape.to_string());
    }
  }

  // The kernel of silu(gate) * up reads both in one pass.
  void check_gate_matches_up(const PlannedTensor& planned, DType found) {
    constexpr std::string_view kGate = ".gate_proj.weight";
    if (!std::string_view(planned.name).ends_with(kGate)) return;
    const std::string up = planned.name.substr(0, planned.name.size() - kGate.size()) + ".up_proj.weight";
    const Checkpoint::Entry* entry = checkpoint_.find(up);
    if (entry != nullptr && entry->info.dtype != found) {
      refuse(ErrorCode::kUnsupported, "tensor {}: dtype {}, but {} has {}; both must be alike", planned.name,
             dtype_name(found), up, dtype_name(entry->info.dtype));
    }
  }

  bool is_scale_of_planned(std::string_view name) const {
    if (name.ends_with(kWeightScaleSuffix)) {
      return is_quantisable(name.substr(0, name.size() - kWeightScaleSuffix.size()));
    }
    if (!config_.static_input_scales || !name.ends_with(kInputScaleSuffix)) return false;
    const std::string_view module = name.substr(0, name.size() - kInputScaleSuffix.size());
    return is_quantisable(std::string(module) + std::string(kWeightSuffix));
  }

  bool is_quantisable(std::string_view name) const {
    const auto found = by_name_.find(name);
    return found != by_name_.end() && found->second->dtype == WeightDType::kQuantisable;
  }

  void check_unexpected() {
    constexpr int kMaxSuggestions = 4;  // each costs a pass over all names
    int num_suggestions = 0;
    for (const Checkpoint::Entry& entry : checkpoint_.entries()) {
      const std::string& name = entry.info.name;
      if (by_name_.contains(name) || is_scale_of_planned(name) || is_ignorable_tensor(config_, name)) continue;
      std::string nearest;
      if (num_suggestions++ < kMaxSuggestions) nearest = nearest_missing_name(name);
      refuse(ErrorCode::kUnsupported, "tensor {} is not part of this model{}{}", name,
             nearest.empty() ? "" : "; nearest missing name: ", nearest);
    }
  }

  std::string nearest_missing_name(const std::string& name) const {
    constexpr size_t kMaxCandidates = 4096;
    std::vector<std::string> missing;
    for (const PlannedTensor& planned : plan_) {
      if (missing.size() < kMaxCandidates && checkpoint_.find(planned.name) == nullptr) missing.push_back(planned.name);
    }
    return closest_name(name, missing);
  }

  const ModelConfig& config_;
  const std::vector<PlannedTensor>& plan_;
  const Checkpoint& checkpoint_;
  const CheckpointState state_;
  std::vector<Error>& problems_;
  std::unordered_map<std::string_view, const PlannedTensor*> by_name_;
  bool reported_fp8_without_config_ = false;
};

}  // namespace

DType PlannedTensor::official_dtype(bool fp8_weights) const {
  switch (dtype) {
    case WeightDType::kF32OrBf16:
      return DType::kF32;
    case WeightDType::kQuantisable:
      return fp8_weights ? DType::kF8E4M3 : DType::kBF16;
    case WeightDType::kBf16:
      break;
  }
  return DType::kBF16;
}

std::vector<PlannedTensor> weight_plan(const ModelConfig& config) { return PlanBuilder(config).build(); }

bool is_ignorable_tensor(const ModelConfig& config, std::string_view name) {
  if (name.ends_with(".rotary_emb.inv_freq")) return true;
  const std::optional<int64_t> layer = layer_of_name(name);
  return layer && *layer >= config.num_hidden_layers + config.num_nextn_predict_layers;
}

void check_checkpoint(const ModelConfig& config, const std::vector<PlannedTensor>& plan, const Checkpoint& checkpoint,
                      CheckpointState state, std::vector<Error>& problems) {
  CheckpointChecker(config, plan, checkpoint, state, problems).check();
}

}  // namespace hadal
