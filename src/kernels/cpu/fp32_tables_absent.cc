// Stands in for fp32_tables.cc on other architectures.
#include "kernels/cpu/tables.h"

namespace hadal::cpu {

const KernelTable* avx2_table() { return nullptr; }
const KernelTable* avx512_table() { return nullptr; }

}  // namespace hadal::cpu
