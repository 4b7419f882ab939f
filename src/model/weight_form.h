// How a numerics plan holds a tensor in memory. Internal to model/.
#pragma once

#include "model/weight_plan.h"
#include "quant/numerics_plan.h"

namespace hadal {

struct WeightForm {
  DType dtype = DType::kBF16;
  bool row_scales = false;  // kF8E4M3 with one scale a row instead of 128 x 128 blocks
};

// The module that a tensor of this role belongs to; null for tensors of no module. An expert's down_proj: `experts`,
// whose input quantisation is that of gate and up (LayerQuant::expert_down has its own).
// Layer: LayerQuant, const or not.
template <typename Layer>
auto* find_module_quant(Layer& layer, WeightRole role) {
  switch (role) {
    case WeightRole::kQ:
    case WeightRole::kQB:
      return &layer.q_b;
    case WeightRole::kQA:
      return &layer.q_a;
    case WeightRole::kKvA:
      return &layer.kv_a;
    case WeightRole::kKvB:
      return &layer.attention.kv_b;
    case WeightRole::kO:
      return &layer.o;
    case WeightRole::kDenseGate:
    case WeightRole::kDenseUp:
    case WeightRole::kSharedGate:
    case WeightRole::kSharedUp:
      return &layer.gate_up;
    case WeightRole::kDenseDown:
    case WeightRole::kSharedDown:
      return &layer.down;
    case WeightRole::kExpertGate:
    case WeightRole::kExpertUp:
    case WeightRole::kExpertDown:
      return &layer.experts;
    default:
      return static_cast<decltype(&layer.q_a)>(nullptr);
  }
}

// What the plan says about the tensor's module; all defaults where it says nothing.
const ModuleQuant& module_quant(const NumericsPlan& numerics, const PlannedTensor& tensor);

// Of a matrix. `stored`: its dtype in the checkpoint. `stored_row_scales`: FP8 weights of the checkpoint have one scale
// a row. act_dtype: of the kernels; F32 holds everything that the plan leaves as stored in F32.
WeightForm weight_form(const NumericsPlan& numerics, const PlannedTensor& tensor, DType stored, bool stored_row_scales,
                       DType act_dtype);

}  // namespace hadal
