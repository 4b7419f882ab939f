// The CPU kernel tables. The portable one is built everywhere, the others where the compiler knows their instructions.
#pragma once

#include "kernels/kernels.h"
#include "kernels/row_math.h"

namespace hadal::cpu {

const KernelTable& portable_table();
// Each null when this build has no such kernels. Whether the processor has them is the caller's question.
const KernelTable* avx2_table();
const KernelTable* avx512_table();
const KernelTable* avx512_bf16_table();
// The row passes, likewise.
const RowMath* avx2_row_math();
const RowMath* avx512_row_math();

}  // namespace hadal::cpu
