// The CPU kernel tables. Build the portable one everywhere, the AVX-512 one where the compiler knows its instructions.
#pragma once

#include "kernels/kernels.h"

namespace hadal::cpu {

const KernelTable& portable_table();
// Null when this build has no such kernels. Whether the processor has them is the caller's question.
const KernelTable* avx512_bf16_table();

}  // namespace hadal::cpu
