// Stands in for avx512_bf16.cc on other architectures and where the compiler lacks the instructions.
#include "kernels/cpu/tables.h"

namespace hadal::cpu {

const KernelTable* avx512_bf16_table() { return nullptr; }

}  // namespace hadal::cpu
