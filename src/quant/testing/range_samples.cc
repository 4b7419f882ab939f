#include "quant/testing/range_samples.h"

#include "quant/range_fields.h"

namespace hadal {

RangeDims small_dims() {
  return {.num_hidden_layers = 3,
          .first_k_dense_replace = 1,
          .hidden_size = 32,
          .num_attention_heads = 4,
          .q_lora_rank = 16,
          .kv_lora_rank = 8,
          .qk_nope_head_dim = 8,
          .qk_rope_head_dim = 4,
          .v_head_dim = 8,
          .intermediate_size = 64,
          .moe_intermediate_size = 16,
          .n_routed_experts = 8,
          .n_shared_experts = 1,
          .dense_leaves = 4,
          .shared_leaves = 2};
}

RangeDims r1_dims() {
  return {.num_hidden_layers = 61,
          .first_k_dense_replace = 3,
          .hidden_size = 7168,
          .num_attention_heads = 128,
          .q_lora_rank = 1536,
          .kv_lora_rank = 512,
          .qk_nope_head_dim = 128,
          .qk_rope_head_dim = 64,
          .v_head_dim = 128,
          .intermediate_size = 18432,
          .moe_intermediate_size = 2048,
          .n_routed_experts = 256,
          .n_shared_experts = 1,
          .dense_leaves = 16,
          .shared_leaves = 16};
}

RangeSet numbered_ranges(const RangeDims& dims) {
  RangeSet set = make_range_set(dims);
  // 8 significant bits, so that BF16 holds them: 128 to 255 in a shuffled order, scaled down.
  int step = 0;
  const auto next = [&step] { return static_cast<float>(128 + (step++ * 37) % 128) / 16; };
  for (size_t l = 0; l < set.layers.size(); ++l) {
    LayerRanges& layer = set.layers[l];
    for (const RangeScalarField& field : range_scalar_fields()) layer.*field.member = next();
    for (const RangeListField& field : range_list_fields()) {
      for (float& value : layer.*field.member) value = next();
    }
    layer.softmax = 1;
    layer.latent_value = layer.kv_b_in;
    raise_range(layer.latent_cache, layer.kv_b_in);
    for (size_t h = 0; h < layer.o_in.size(); ++h) raise_range(layer.o_in[h], layer.sdpa_out[h]);
    if (!dims.is_moe_layer(static_cast<int64_t>(l))) continue;
    layer.expert_tokens.assign(layer.expert_down_in.size(), 100 + l);
    layer.moe_out[2] = {next(), next()};
  }
  return set;
}

}  // namespace hadal
