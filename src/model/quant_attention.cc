#include "model/quant_attention.h"

namespace hadal {
namespace {

QuantScale to_kernel(const StaticScale& scale) { return {.scale = scale.scale, .inv = scale.inv}; }

std::optional<MatmulScales> to_kernel(const std::optional<std::array<StaticScale, 2>>& scales) {
  if (!scales) return std::nullopt;
  return MatmulScales{to_kernel((*scales)[0]), to_kernel((*scales)[1])};
}

// The plain kernels read FP8 rows with scale 1.
bool has_cache_scale(const AttentionQuant& attention) {
  return attention.latent_cache && attention.latent_cache->scale != 1;
}

}  // namespace

bool quantises_prefill(const LayerQuant& quant) {
  const AttentionQuant& attention = quant.attention;
  return attention.sdpa || attention.kv_b.weight == WeightFormat::kRowF8 || has_cache_scale(attention);
}

bool quantises_decode(const LayerQuant& quant) {
  const AttentionQuant& attention = quant.attention;
  return attention.matmul_qk || attention.matmul_av || attention.batch2block || attention.block2batch ||
         has_cache_scale(attention);
}

QuantExpandedArgs quant_expanded_args(const NumericsPlan& numerics, const LayerQuant& quant, const HeadWeights& head,
                                      ExpandedAttentionArgs base) {
  const AttentionQuant& attention = quant.attention;
  if (head.w_uk_f8.rows > 0) {
    base.w_uk = &head.w_uk_f8;
    base.w_uv = &head.w_uv_f8;
  }
  QuantExpandedArgs args = {.base = base, .max_finite = full_scale(numerics.range)};
  if (attention.latent_cache) args.cache_scale = attention.latent_cache->scale;
  const InputQuant& latent = attention.kv_b.input;
  if (latent.kind == InputQuantKind::kStatic) {
    args.latent_input = QuantiseKind::kStatic;
    args.latent = to_kernel(latent.scale);
  } else if (latent.kind == InputQuantKind::kToken) {
    args.latent_input = QuantiseKind::kToken;
  }
  if (attention.sdpa) {
    const auto& [q, k, v, probabilities, output] = *attention.sdpa;
    args.sdpa = SdpaScales{to_kernel(q), to_kernel(k), to_kernel(v), to_kernel(probabilities), to_kernel(output)};
  }
  return args;
}

QuantAbsorbedArgs quant_absorbed_args(const NumericsPlan& numerics, const LayerQuant& quant,
                                      AbsorbedAttentionArgs base) {
  const AttentionQuant& attention = quant.attention;
  QuantAbsorbedArgs args = {.base = base,
                            .max_finite = full_scale(numerics.range),
                            .matmul_qk = to_kernel(attention.matmul_qk),
                            .matmul_av = to_kernel(attention.matmul_av),
                            .batch2block = to_kernel(attention.batch2block),
                            .block2batch = to_kernel(attention.block2batch)};
  if (attention.latent_cache) args.cache_scale = attention.latent_cache->scale;
  return args;
}

}  // namespace hadal
