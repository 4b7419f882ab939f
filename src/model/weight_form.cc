#include "model/weight_form.h"

namespace hadal {
namespace {

const ModuleQuant kAsStored;

const ModuleQuant& quant_of_role(const LayerQuant& layer, WeightRole role) {
  switch (role) {
    case WeightRole::kQ:
    case WeightRole::kQB:
      return layer.q_b;
    case WeightRole::kQA:
      return layer.q_a;
    case WeightRole::kKvA:
      return layer.kv_a;
    case WeightRole::kKvB:
      return layer.attention.kv_b;
    case WeightRole::kO:
      return layer.o;
    case WeightRole::kDenseGate:
    case WeightRole::kDenseUp:
    case WeightRole::kSharedGate:
    case WeightRole::kSharedUp:
      return layer.gate_up;
    case WeightRole::kDenseDown:
    case WeightRole::kSharedDown:
      return layer.down;
    case WeightRole::kExpertGate:
    case WeightRole::kExpertUp:
    case WeightRole::kExpertDown:
      return layer.experts;
    default:
      return kAsStored;
  }
}

}  // namespace

const ModuleQuant& module_quant(const NumericsPlan& numerics, const PlannedTensor& tensor) {
  if (tensor.layer < 0 || static_cast<size_t>(tensor.layer) >= numerics.layers.size()) return kAsStored;
  return quant_of_role(numerics.layers[static_cast<size_t>(tensor.layer)], tensor.role);
}

WeightForm weight_form(const NumericsPlan& numerics, const PlannedTensor& tensor, DType stored, bool stored_row_scales,
                       DType act_dtype) {
  switch (module_quant(numerics, tensor).weight) {
    case WeightFormat::kBf16:
      return {DType::kBF16, false};
    case WeightFormat::kRowF8:
      return {DType::kF8E4M3, true};
    case WeightFormat::kStored:
      break;
  }
  if (act_dtype == DType::kF32 && numerics.layers.empty()) return {DType::kF32, false};
  return {stored, stored == DType::kF8E4M3 && stored_row_scales};
}

}  // namespace hadal
