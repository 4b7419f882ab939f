// Primitives for AVX-512 with BF16 dot products (Zen 4 and later, Cooper Lake, Sapphire Rapids and later).
//
// vdpbf16ps treats denormal inputs as zero and flushes denormal sums to zero, whatever MXCSR says: activations and
// weights below 1.2e-38 in magnitude count as zero. Every FP8 code is a normal BF16 number or zero, so weights lose
// nothing. Rounding to BF16 (vcvtneps2bf16) flushes denormals too.
#pragma once

#include "kernels/cpu/primitives.h"

namespace hadal::cpu::avx512_bf16 {

void dot_f8(const DotArgs& args);
void dot_bf16(const DotArgs& args);
void add_leaves_f8(const LeavesArgs& args);
void add_leaves_bf16(const LeavesArgs& args);
void silu_mul(const float* gate, const float* up, int64_t n, bf16_t* out);
void round_row(const float* in, int64_t n, bf16_t* out);
void decode_f8_row(const uint8_t* codes, int64_t n, bf16_t* out);
void softmax_segment(const SoftmaxArgs& args);
void weighted_values(const ValuesArgs& args);

}  // namespace hadal::cpu::avx512_bf16
