// The passes over rows of logits on AVX-512. Compiled with flags for it: see primitives.h on what may be included.
#include "kernels/cpu/avx512_vector.h"
#include "kernels/cpu/fp32_kernels.h"
#include "kernels/cpu/row_passes.h"

namespace hadal::cpu::avx512 {

const RowMath kRowMath = kRowMathIn<Avx512>;

}  // namespace hadal::cpu::avx512
