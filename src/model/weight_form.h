// How a numerics plan holds a tensor in memory. Internal to model/.
#pragma once

#include "model/weight_plan.h"
#include "quant/numerics_plan.h"

namespace hadal {

struct WeightForm {
  DType dtype = DType::kBF16;
  bool row_scales = false;  // kF8E4M3 with one scale a row instead of 128 x 128 blocks
};

// What the plan says about the tensor's module; all defaults where it says nothing.
const ModuleQuant& module_quant(const NumericsPlan& numerics, const PlannedTensor& tensor);

// Of a matrix. `stored`: its dtype in the checkpoint. `stored_row_scales`: FP8 weights of the checkpoint have one scale
// a row. act_dtype: of the kernels; F32 holds everything that the plan leaves as stored in F32.
WeightForm weight_form(const NumericsPlan& numerics, const PlannedTensor& tensor, DType stored, bool stored_row_scales,
                       DType act_dtype);

}  // namespace hadal
