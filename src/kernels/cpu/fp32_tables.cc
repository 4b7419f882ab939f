// The tables. Compiled for the baseline: only the primitives hold AVX instructions.
#include "kernels/cpu/drivers.h"
#include "kernels/cpu/fp32_kernels.h"
#include "kernels/cpu/portable.h"
#include "kernels/cpu/tables.h"

namespace hadal::cpu {
namespace {

constexpr DotPrimitives kPortableF32 = {portable::dot_f32, portable::add_leaves_f32};

constexpr Primitives kAvx2 = {.max_group = kMaxTokens,
                              .group_unit = 6,  // multiples of its register tiles
                              .f8 = {avx2::dot_f8, avx2::add_leaves_f8},
                              .bf16 = {avx2::dot_bf16, avx2::add_leaves_bf16},
                              .f32 = kPortableF32,
                              .silu_mul = avx2::silu_mul,
                              .round_row = avx2::round_row,
                              .decode_f8_row = avx2::decode_f8_row,
                              .softmax_segment = avx2::softmax_segment,
                              .weighted_values = avx2::weighted_values};
constexpr Primitives kAvx512 = {.max_group = kRegisterTokens,
                                .group_unit = 1,
                                .f8 = {avx512::dot_f8, avx512::add_leaves_f8},
                                .bf16 = {avx512::dot_bf16, avx512::add_leaves_bf16},
                                .f32 = kPortableF32,
                                .silu_mul = avx512::silu_mul,
                                .round_row = avx512::round_row,
                                .decode_f8_row = avx512::decode_f8_row,
                                .softmax_segment = avx512::softmax_segment,
                                .weighted_values = avx512::weighted_values};

constexpr KernelTable kAvx2Table = make_table<kAvx2>(Isa::kAvx2, "avx2");
constexpr KernelTable kAvx512Table = make_table<kAvx512>(Isa::kAvx512, "avx512");

}  // namespace

const KernelTable* avx2_table() { return &kAvx2Table; }
const KernelTable* avx512_table() { return &kAvx512Table; }
const RowMath* avx2_row_math() { return &avx2::kRowMath; }
const RowMath* avx512_row_math() { return &avx512::kRowMath; }

}  // namespace hadal::cpu
