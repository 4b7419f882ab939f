#include "quant/range_fields.h"

#include <array>

namespace hadal {
namespace {

using R = LayerRanges;
using D = RangeDims;

constexpr std::array kScalars = {
    RangeScalarField{"attention_in", &R::attention_in},
    RangeScalarField{"q_b_in", &R::q_b_in},
    RangeScalarField{"kv_b_in", &R::kv_b_in},
    RangeScalarField{"latent_value", &R::latent_value},
    RangeScalarField{"latent_cache", &R::latent_cache},
    RangeScalarField{"softmax", &R::softmax},
    RangeScalarField{"mlp_in", &R::mlp_in},
    RangeScalarField{"q_a_weight", &R::q_a_weight},
    RangeScalarField{"kv_a_weight", &R::kv_a_weight},
};

constexpr std::array kLists = {
    RangeListField{"sdpa_q", &R::sdpa_q, RangeExtent::kHeads},
    RangeListField{"sdpa_k", &R::sdpa_k, RangeExtent::kHeads},
    RangeListField{"sdpa_v", &R::sdpa_v, RangeExtent::kHeads},
    RangeListField{"sdpa_out", &R::sdpa_out, RangeExtent::kHeads},
    RangeListField{"o_in", &R::o_in, RangeExtent::kHeads},
    RangeListField{"absorbed_q", &R::absorbed_q, RangeExtent::kHeads},
    RangeListField{"batch2block", &R::batch2block, RangeExtent::kHeads},
    RangeListField{"block2batch", &R::block2batch, RangeExtent::kHeads},
    RangeListField{"down_in", &R::down_in, RangeExtent::kLeaves},
    RangeListField{"expert_down_in", &R::expert_down_in, RangeExtent::kExperts},
    RangeListField{"q_b_weight", &R::q_b_weight, RangeExtent::kHeads},
    RangeListField{"kv_b_weight", &R::kv_b_weight, RangeExtent::kHeads},
    RangeListField{"o_weight", &R::o_weight, RangeExtent::kHeads},
    RangeListField{"gate_up_weight", &R::gate_up_weight, RangeExtent::kLeaves},
    RangeListField{"down_weight", &R::down_weight, RangeExtent::kLeaves},
    RangeListField{"w13_weight", &R::w13_weight, RangeExtent::kExperts},
    RangeListField{"w2_weight", &R::w2_weight, RangeExtent::kExperts},
};

// Bounds as in formats/hf_config.cc.
constexpr int64_t kMaxWidth = 1 << 24;
constexpr std::array kDims = {
    RangeDimField{"num_hidden_layers", &D::num_hidden_layers, 1, 1024},
    RangeDimField{"first_k_dense_replace", &D::first_k_dense_replace, 0, 1024},
    RangeDimField{"moe_layer_freq", &D::moe_layer_freq, 1, 1024},
    RangeDimField{"hidden_size", &D::hidden_size, 1, kMaxWidth},
    RangeDimField{"num_attention_heads", &D::num_attention_heads, 1, 4096},
    RangeDimField{"q_lora_rank", &D::q_lora_rank, 0, kMaxWidth},
    RangeDimField{"kv_lora_rank", &D::kv_lora_rank, 1, kMaxWidth},
    RangeDimField{"qk_nope_head_dim", &D::qk_nope_head_dim, 1, 1 << 16},
    RangeDimField{"qk_rope_head_dim", &D::qk_rope_head_dim, 1, 1 << 16},
    RangeDimField{"v_head_dim", &D::v_head_dim, 1, 1 << 16},
    RangeDimField{"intermediate_size", &D::intermediate_size, 1, kMaxWidth},
    RangeDimField{"moe_intermediate_size", &D::moe_intermediate_size, 0, kMaxWidth},
    RangeDimField{"n_routed_experts", &D::n_routed_experts, 0, 4096},
    RangeDimField{"n_shared_experts", &D::n_shared_experts, 0, 4096},
    RangeDimField{"dense_leaves", &D::dense_leaves, 1, 64},
    RangeDimField{"shared_leaves", &D::shared_leaves, 0, 64},
};

}  // namespace

std::span<const RangeScalarField> range_scalar_fields() { return kScalars; }
std::span<const RangeListField> range_list_fields() { return kLists; }
std::span<const RangeDimField> range_dim_fields() { return kDims; }

int64_t range_extent(const RangeDims& dims, int64_t layer, RangeExtent extent) {
  switch (extent) {
    case RangeExtent::kHeads:
      return dims.num_attention_heads;
    case RangeExtent::kLeaves:
      return dims.leaves_of(layer);
    case RangeExtent::kExperts:
      return dims.is_moe_layer(layer) ? dims.n_routed_experts : 0;
  }
  return 0;
}

}  // namespace hadal
