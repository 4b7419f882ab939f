#include "model/weight_form.h"

namespace hadal {
namespace {

const ModuleQuant kAsStored;

}  // namespace

const ModuleQuant& module_quant(const NumericsPlan& numerics, const PlannedTensor& tensor) {
  if (tensor.layer < 0 || static_cast<size_t>(tensor.layer) >= numerics.layers.size()) return kAsStored;
  const ModuleQuant* module = find_module_quant(numerics.layers[static_cast<size_t>(tensor.layer)], tensor.role);
  return module != nullptr ? *module : kAsStored;
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
