// The weights of a model in RAM, in the kernels' order. Dtypes: matrices are as the numerics plan says (weight_form.h);
// without one FP8 with the checkpoint's scales where it has FP8, else BF16, and all F32 for kernels whose activations
// are F32. Vectors are F32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/aligned_buffer.h"
#include "kernels/kernels.h"
#include "kernels/packed_matrix.h"
#include "model/config.h"
#include "model/rank_layout.h"
#include "model/weight_plan.h"
#include "quant/numerics_plan.h"

namespace hadal {

// Shapes below are those of a rank's part (rank_layout.h): "heads" are its heads, "width" is its share, and so on.

// down(silu(gate x) * (up x)); gate and up [width, hidden], down [hidden, width].
struct MlpWeights {
  PackedMatrix gate, up, down;
};

// kv_b_proj of one head, BF16 (F32): dequantised once, one rounding.
struct HeadWeights {
  PackedMatrix w_uk;    // [qk_nope_head_dim, kv_lora_rank]
  PackedMatrix w_uv;    // [v_head_dim, kv_lora_rank]
  PackedMatrix w_uk_t;  // [kv_lora_rank, qk_nope_head_dim]
  // Where the plan has kv_b_proj in FP8 per row: what prefill expands with. rows == 0 otherwise.
  PackedMatrix w_uk_f8, w_uv_f8;
};

struct LayerWeights {
  const LayerQuant* quant = nullptr;  // never null once placed; all defaults where nothing is quantised

  const float* input_norm = nullptr;           // [hidden]
  const float* post_attention_norm = nullptr;  // [hidden]

  PackedMatrix q;                    // [heads * qk_head_dim, q_lora_rank (q_b_proj) or hidden (q_proj)]
  PackedMatrix q_a;                  // [q_lora_rank, hidden]; rows == 0 without q_lora_rank
  const float* q_a_norm = nullptr;   // [q_lora_rank]
  PackedMatrix kv_a;                 // [kv_lora_rank + qk_rope_head_dim, hidden]
  const float* kv_a_norm = nullptr;  // [kv_lora_rank]
  std::vector<HeadWeights> heads;
  PackedMatrix o;  // [hidden, heads * v_head_dim]

  bool is_moe = false;
  MlpWeights mlp;                      // dense layers: the MLP; MoE layers: the shared expert, if any
  PackedMatrix router;                 // [n_routed_experts, hidden]
  const float* router_bias = nullptr;  // [n_routed_experts]
  std::vector<MlpWeights> experts;     // [n_routed_experts]; without matrices where another rank has it
};

// Owns the memory that all the views point into. Movable; immutable once loaded.
struct ModelWeights {
  NumericsPlan numerics;                    // what LayerWeights::quant points into
  const std::byte* embed_tokens = nullptr;  // BF16 [vocab, hidden], row-major
  std::vector<LayerWeights> layers;
  const float* final_norm = nullptr;  // [hidden]
  PackedMatrix lm_head;               // [share of the vocabulary, hidden]
  std::vector<AlignedBuffer> arenas;  // one per layer, then one for the top level
};

// Where the content of one checkpoint tensor goes. Exactly one destination is set.
struct WeightDestination {
  const PlannedTensor* tensor = nullptr;
  TensorPart part;  // what of it; not empty
  PackedMatrix* matrix = nullptr;
  std::vector<HeadWeights>* heads = nullptr;
  float* vector = nullptr;
  std::byte* rows = nullptr;  // copied as stored
};

// The dtype a planned tensor has in the checkpoint at hand.
using StoredDType = std::function<DType(const PlannedTensor&)>;

// Bytes of every arena that place_weights() will ask for.
std::vector<uint64_t> weight_arena_bytes(const ModelConfig& config, const std::vector<PlannedTensor>& plan,
                                         const NumericsPlan& numerics, const StoredDType& stored_dtype, DType act_dtype,
                                         const RankSlice& slice = {});

// Allocates the arenas and points every view into them; contents are zero until filled. The destinations, in plan
// order, point into `plan` and `weights`; what another rank has, has none. Forms are those of weights.numerics. MTP
// layers have none. Errors: kResourceExhausted, before touching memory.
Expected<std::vector<WeightDestination>> place_weights(const ModelConfig& config,
                                                       const std::vector<PlannedTensor>& plan,
                                                       const StoredDType& stored_dtype, DType act_dtype,
                                                       ModelWeights& weights, const RankSlice& slice = {});

}  // namespace hadal
