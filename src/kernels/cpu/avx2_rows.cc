// The passes over rows of logits on AVX2. Compiled with flags for it: see primitives.h on what may be included.
#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/fp32_kernels.h"
#include "kernels/cpu/row_passes.h"

namespace hadal::cpu::avx2 {

const RowMath kRowMath = kRowMathIn<Avx2>;

}  // namespace hadal::cpu::avx2
