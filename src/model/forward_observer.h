// Lets tests and measurements see intermediate values of a forward step. Off by default, then it costs a branch a
// layer.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "tensor/tensor_view.h"

namespace hadal {

// Called on the thread that calls forward(), between parallel sections; the view is valid during the call.
//   "residual"           F32 [tokens, hidden]               the stream behind layer `layer`
//   "router.expert_ids"  I32 [tokens, num_experts_per_tok]  MoE layers, ascending ids
//   "router.weights"     F32 [tokens, num_experts_per_tok]  MoE layers
using ForwardObserver = std::function<void(std::string_view name, int64_t layer, const TensorView& values)>;

}  // namespace hadal
