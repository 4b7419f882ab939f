// Stands in for fp32_tables.cc on other architectures.
#include "kernels/cpu/tables.h"

namespace hadal::cpu {

const KernelTable* avx2_table() { return nullptr; }
const KernelTable* avx512_table() { return nullptr; }
const RowMath* avx2_row_math() { return nullptr; }
const RowMath* avx512_row_math() { return nullptr; }

}  // namespace hadal::cpu
