// Primitives with FP32 multiply-adds, for processors without BF16 dot products: one set of templates (fp32_dot.h,
// fp32_attention.h), compiled once for each of two instruction sets.
#pragma once

#include "kernels/cpu/primitives.h"
#include "kernels/row_math.h"

namespace hadal::cpu {

// AVX2, FMA and F16C.
namespace avx2 {
void dot_f8(const DotArgs& args);
void dot_bf16(const DotArgs& args);
void add_leaves_f8(const LeavesArgs& args);
void add_leaves_bf16(const LeavesArgs& args);
void silu_mul(const float* gate, const float* up, int64_t n, bf16_t* out);
void round_row(const float* in, int64_t n, bf16_t* out);
void decode_f8_row(const uint8_t* codes, int64_t n, bf16_t* out);
void softmax_segment(const SoftmaxArgs& args);
void weighted_values(const ValuesArgs& args);
extern const RowMath kRowMath;
}  // namespace avx2

// AVX-512 F, BW, VL and DQ.
namespace avx512 {
void dot_f8(const DotArgs& args);
void dot_bf16(const DotArgs& args);
void add_leaves_f8(const LeavesArgs& args);
void add_leaves_bf16(const LeavesArgs& args);
void silu_mul(const float* gate, const float* up, int64_t n, bf16_t* out);
void round_row(const float* in, int64_t n, bf16_t* out);
void decode_f8_row(const uint8_t* codes, int64_t n, bf16_t* out);
void softmax_segment(const SoftmaxArgs& args);
void weighted_values(const ValuesArgs& args);
extern const RowMath kRowMath;
}  // namespace avx512

}  // namespace hadal::cpu
