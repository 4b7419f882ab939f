// Every tensor that a checkpoint of a given model holds: name, shape, allowed dtypes, role. The one list from which the
// loader, `inspect` and the synthetic checkpoint writer work. Names and shapes: README_WEIGHTS.md and
// modeling_deepseek.py of the published checkpoints. Weights are [out, in], row-major, y = x Wᵀ.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "model/config.h"
#include "tensor/tensor_view.h"

namespace hadal {

inline constexpr std::string_view kWeightScaleSuffix = "_scale_inv";  // "X.weight" -> "X.weight_scale_inv"
inline constexpr std::string_view kWeightSuffix = ".weight";
inline constexpr std::string_view kInputScaleSuffix = ".input_scale";  // "X.weight" -> "X.input_scale"

enum class WeightRole : uint8_t {
  kEmbedTokens,
  kFinalNorm,
  kLmHead,
  kInputNorm,
  kPostAttentionNorm,
  kQ,  // q_proj, when q_lora_rank is 0
  kQA,
  kQANorm,
  kQB,
  kKvA,
  kKvANorm,
  kKvB,
  kO,
  kDenseGate,
  kDenseUp,
  kDenseDown,
  kRouter,
  kRouterBias,
  kExpertGate,
  kExpertUp,
  kExpertDown,
  kSharedGate,
  kSharedUp,
  kSharedDown,
  kMtpEmbedTokens,  // copy of kEmbedTokens
  kMtpEmbeddingNorm,
  kMtpHiddenNorm,
  kMtpProjection,  // eh_proj
  kMtpHeadNorm,
  kMtpHead,  // copy of kLmHead
};

enum class WeightDType : uint8_t {
  kBf16,
  kF32OrBf16,  // e_score_correction_bias: F32, except that Moonlight's may be BF16
  // F8_E4M3 with a companion scale F32 [ceil(rows / 128), ceil(cols / 128)] when config.fp8_weights, or BF16.
  kQuantisable,
};

struct PlannedTensor {
  std::string name;
  Shape shape;
  WeightRole role = WeightRole::kEmbedTokens;
  WeightDType dtype = WeightDType::kBf16;
  int64_t layer = -1;     // -1: top level; >= num_hidden_layers: an MTP layer
  int64_t expert = -1;    // routed experts only
  bool optional = false;  // may be absent: the MTP copies, and all of an MTP layer together

  std::string scale_name() const { return name + std::string(kWeightScaleSuffix); }
  // Static scale of the module's input, F32 [1], in checkpoints with config.static_input_scales.
  std::string input_scale_name() const {
    return name.substr(0, name.size() - kWeightSuffix.size()) + std::string(kInputScaleSuffix);
  }
  // Dtype in a published checkpoint of this model.
  DType official_dtype(bool fp8_weights) const;
};

// In checkpoint order: embedding, layers ascending (MTP layers last), final norm, head. Scales are not listed: one
// for every kQuantisable tensor that is F8_E4M3. Requires a config without problems.
std::vector<PlannedTensor> weight_plan(const ModelConfig& config);

// True for names that a loader skips: "*.rotary_emb.inv_freq" and layers behind the planned ones.
bool is_ignorable_tensor(const ModelConfig& config, std::string_view name);

// Whether every shard could be read. If not, absent tensors are the shards' fault and not reported again.
enum class CheckpointState { kComplete, kDamaged };

// Compares a checkpoint with the plan and appends every problem: missing, unexpected, wrong shape, wrong dtype, missing
// scale, wrong scale shape or dtype, FP8 weights without quantization_config, gate and up of different dtypes.
void check_checkpoint(const ModelConfig& config, const std::vector<PlannedTensor>& plan, const Checkpoint& checkpoint,
                      CheckpointState state, std::vector<Error>& problems);

}  // namespace hadal
