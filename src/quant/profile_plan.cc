#include "quant/profile_plan.h"

#include <string>
#include <vector>

#include "base/check.h"
#include "base/names.h"

namespace hadal {
namespace {

const std::vector<std::string> kProfileNames = {"bf16", "reference", "fp8-dynamic", "gaudi2", "gaudi3"};
const std::vector<std::string> kModeNames = {"none", "runtime-dequant", "dynamic", "static", "inc"};

Expected<size_t> index_of(const std::vector<std::string>& names, std::string_view name, const char* what) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return i;
  }
  return make_error(ErrorCode::kInvalidArgument, "unknown {} \"{}\": did you mean \"{}\"?", what, name,
                    closest_name(std::string(name), names));
}

// Every module of a layer alike.
LayerQuant uniform_layer(WeightFormat weight, InputQuantKind input) {
  const ModuleQuant module = {.weight = weight, .input = {.kind = input}};
  LayerQuant layer;
  layer.q_a = layer.kv_a = layer.q_b = layer.o = layer.gate_up = layer.down = layer.experts = module;
  layer.expert_down = input;
  layer.attention.kv_b = module;
  return layer;
}

}  // namespace

Expected<NumericsProfile> parse_numerics_profile(std::string_view name) {
  HADAL_ASSIGN_OR_RETURN(const size_t index, index_of(kProfileNames, name, "numerics profile"));
  return static_cast<NumericsProfile>(index);
}

const char* numerics_profile_name(NumericsProfile profile) {
  return kProfileNames[static_cast<size_t>(profile)].c_str();
}

Expected<GaudiMode> parse_gaudi_mode(std::string_view name) {
  HADAL_ASSIGN_OR_RETURN(const size_t index, index_of(kModeNames, name, "Gaudi mode"));
  return static_cast<GaudiMode>(index);
}

const char* gaudi_mode_name(GaudiMode mode) { return kModeNames[static_cast<size_t>(mode)].c_str(); }

NumericsPlan gaudi_plan_base(NumericsProfile profile, GaudiMode mode, RangeMap range_map) {
  HADAL_CHECK(profile == NumericsProfile::kGaudi2 || profile == NumericsProfile::kGaudi3, "{} is no Gaudi",
              numerics_profile_name(profile));
  NumericsPlan plan;
  plan.profile = profile;
  plan.mode = mode;
  plan.range = profile == NumericsProfile::kGaudi2 ? FpRange::kGaudi2 : FpRange::kGaudi3;
  plan.range_map = range_map;
  plan.weight_rule.range = plan.range;
  plan.bf16_results = true;
  return plan;
}

NumericsPlan make_profile_plan(const ProfileOptions& options) {
  NumericsPlan plan;
  plan.profile = options.profile;
  const auto num_layers = static_cast<size_t>(options.num_layers);
  switch (options.profile) {
    case NumericsProfile::kBf16:
    case NumericsProfile::kReference:
      return plan;
    case NumericsProfile::kFp8Dynamic: {
      plan.group_scale_pow2 = options.ue8m0_scales;
      LayerQuant layer = uniform_layer(WeightFormat::kStored, InputQuantKind::kGroup);
      layer.attention.kv_b = {};  // the official code de-quantises it and attends in BF16
      plan.layers.assign(num_layers, layer);
      return plan;
    }
    case NumericsProfile::kGaudi2:
    case NumericsProfile::kGaudi3:
      break;
  }
  plan = gaudi_plan_base(options.profile, options.mode, options.range_map);
  if (options.mode == GaudiMode::kRuntimeDequant) {
    plan.layers.assign(num_layers, uniform_layer(WeightFormat::kBf16, InputQuantKind::kNone));
  } else {
    HADAL_CHECK(options.mode == GaudiMode::kDynamic, "mode {} needs scales", gaudi_mode_name(options.mode));
    plan.weight_rule.epsilon = 1e-8f;
    plan.layers.assign(num_layers, uniform_layer(WeightFormat::kRowF8, InputQuantKind::kToken));
  }
  if (options.fp8_cache) {
    for (LayerQuant& layer : plan.layers) layer.attention.latent_cache = StaticScale{};
  }
  return plan;
}

}  // namespace hadal
