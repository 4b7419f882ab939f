// Primitives in plain C++, for any processor; written so that compilers vectorise the loops over the 32 lanes.
#pragma once

#include "kernels/cpu/primitives.h"
#include "kernels/row_math.h"

namespace hadal::cpu::portable {

void dot_f32(const DotArgs& args);
void add_leaves_f32(const LeavesArgs& args);
void silu_mul(const float* gate, const float* up, int64_t n, bf16_t* out);
void round_row(const float* in, int64_t n, bf16_t* out);
void softmax_segment(const SoftmaxArgs& args);
void weighted_values(const ValuesArgs& args);
extern const RowMath kRowMath;

}  // namespace hadal::cpu::portable
