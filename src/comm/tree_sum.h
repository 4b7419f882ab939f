// The one order in which ranks are summed.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace hadal {

// out[i] = sum over r of inputs[r][begin + i], i < count, in FP32, joined as a binary tree: the lower 2^k inputs (the
// largest power of two below their number) against the rest, each joined the same way; rounded once to `dtype`.
// inputs: f32 or bf16, at least one; out: of the same dtype, may be one of the inputs' own elements
// (inputs[r] + begin), no other overlap. Cost: reads inputs.size() * count elements, adds as many.
void tree_sum(std::span<const void* const> inputs, int64_t begin, int64_t count, DType dtype, void* out);

}  // namespace hadal
