#include "model/static_plan.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

#include "model/weight_form.h"
#include "model/weight_plan.h"
#include "quant/profile_plan.h"

namespace hadal {
namespace {

Expected<float> read_scale(const Checkpoint& checkpoint, const std::string& name) {
  float scale = 0;
  HADAL_RETURN_IF_ERROR(checkpoint.read(*checkpoint.find(name), std::as_writable_bytes(std::span(&scale, 1))));
  if (!std::isfinite(scale) || scale <= 0) {
    return make_error(ErrorCode::kCorrupt, "tensor {}: {}, must be positive and finite", name, scale);
  }
  return scale;
}

void raise(StaticScale& to, float scale) {
  if (to.scale < scale) to = {.scale = scale, .inv = 1.0f / scale};
}

}  // namespace

Expected<NumericsPlan> make_static_plan(NumericsProfile profile, const ModelConfig& config,
                                        const Checkpoint& checkpoint) {
  NumericsPlan plan = gaudi_plan_base(profile, GaudiMode::kStatic, RangeMap::kNone);
  plan.layers.resize(static_cast<size_t>(config.num_hidden_layers));
  std::vector<StaticScale> expert_down(plan.layers.size(), StaticScale{.scale = 0});
  for (const PlannedTensor& tensor : weight_plan(config)) {
    if (tensor.layer < 0 || tensor.layer >= config.num_hidden_layers) continue;
    LayerQuant& layer = plan.layers[static_cast<size_t>(tensor.layer)];
    const Checkpoint::Entry* weight = checkpoint.find(tensor.name);
    ModuleQuant* module = find_module_quant(layer, tensor.role);
    if (module == nullptr || weight == nullptr || weight->info.dtype != DType::kF8E4M3) continue;
    HADAL_ASSIGN_OR_RETURN(const float scale, read_scale(checkpoint, tensor.input_scale_name()));
    if (tensor.role == WeightRole::kExpertDown) {
      layer.expert_down = InputQuantKind::kStatic;
      raise(expert_down[static_cast<size_t>(tensor.layer)], scale);
      continue;
    }
    if (module->weight == WeightFormat::kStored) {
      *module = {.weight = WeightFormat::kRowF8, .input = {.kind = InputQuantKind::kStatic, .scale = {.scale = 0}}};
    }
    raise(module->input.scale, scale);
  }
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    if (plan.layers[i].expert_down != InputQuantKind::kStatic) continue;
    plan.layers[i].expert_down_scales.assign(static_cast<size_t>(config.router.n_routed_experts), expert_down[i]);
  }
  return plan;
}

}  // namespace hadal
