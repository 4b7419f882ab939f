#include "numerics_plans.h"

#include "quant/profile_plan.h"

namespace hadal {
namespace {

constexpr int64_t kLayers = 3, kExperts = 16;

NumericsPlan plan_of(NumericsProfile profile, GaudiMode mode) {
  return make_profile_plan({.profile = profile, .mode = mode, .range_map = RangeMap::kExact, .num_layers = kLayers});
}

StaticScale scale_for(float amax) { return scale_from_amax(amax, {}); }

}  // namespace

NumericsPlan fp8_dynamic_plan() { return plan_of(NumericsProfile::kFp8Dynamic, GaudiMode::kNone); }

NumericsPlan gaudi2_runtime_dequant_plan() { return plan_of(NumericsProfile::kGaudi2, GaudiMode::kRuntimeDequant); }

NumericsPlan gaudi2_dynamic_plan() { return plan_of(NumericsProfile::kGaudi2, GaudiMode::kDynamic); }

NumericsPlan gaudi2_static_plan() {
  NumericsPlan plan = gaudi_plan_base(NumericsProfile::kGaudi2, GaudiMode::kInc, RangeMap::kExact);
  const auto module = [](float amax) {
    return ModuleQuant{.weight = WeightFormat::kRowF8,
                       .input = {.kind = InputQuantKind::kStatic, .scale = scale_for(amax)}};
  };
  LayerQuant layer;
  layer.q_a = module(5);
  layer.kv_a = module(6);  // another scale: both inputs are made
  layer.q_b = layer.o = layer.gate_up = layer.experts = module(5);
  layer.down = module(3);
  layer.expert_down = InputQuantKind::kStatic;
  for (int64_t expert = 0; expert < kExperts; ++expert) {
    layer.expert_down_scales.push_back(scale_for(2 + static_cast<float>(expert)));
  }
  AttentionQuant& attention = layer.attention;
  attention.kv_b = module(5);
  attention.latent_cache = scale_for(5);
  attention.sdpa = {scale_for(8), scale_for(8), scale_for(4), scale_for(1), scale_for(4)};
  attention.matmul_qk = {scale_for(8), scale_for(5)};
  attention.matmul_av = {scale_for(1), scale_for(5)};
  attention.batch2block = {scale_for(1), scale_for(128)};
  attention.block2batch = {scale_for(1), scale_for(64)};
  plan.layers.assign(kLayers, layer);
  return plan;
}

}  // namespace hadal
