// The table. Compiled for the baseline: only the primitives hold AVX-512 instructions.
#include "kernels/cpu/avx512_bf16.h"

#include "kernels/cpu/drivers.h"
#include "kernels/cpu/portable.h"
#include "kernels/cpu/tables.h"

namespace hadal::cpu {
namespace avx512_bf16 {
namespace {
constexpr Primitives kPrimitives = {.max_group = kRegisterTokens,
                                    .group_unit = 1,
                                    .f8 = {dot_f8, add_leaves_f8},
                                    .bf16 = {dot_bf16, add_leaves_bf16},
                                    .f32 = {portable::dot_f32, portable::add_leaves_f32},
                                    .silu_mul = silu_mul,
                                    .round_row = round_row,
                                    .decode_f8_row = decode_f8_row,
                                    .softmax_segment = softmax_segment,
                                    .weighted_values = weighted_values};
constexpr KernelTable kTable = make_table<kPrimitives>(Isa::kAvx512Bf16, "avx512-bf16");
}  // namespace
}  // namespace avx512_bf16

const KernelTable* avx512_bf16_table() { return &avx512_bf16::kTable; }

}  // namespace hadal::cpu
