#include "kernels/row_math.h"

#include "base/check.h"
#include "kernels/cpu/portable.h"
#include "kernels/cpu/tables.h"
#include "kernels/ref/reference.h"

namespace hadal {

const RowMath& row_math_for(Isa isa) {
  const RowMath* math = nullptr;
  switch (isa) {
    case Isa::kReference:
      math = &reference::kRowMath;
      break;
    case Isa::kPortable:
      math = &cpu::portable::kRowMath;
      break;
    case Isa::kAvx2:
      math = cpu::avx2_row_math();
      break;
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:  // BF16 products do not help here
      math = cpu::avx512_row_math();
      break;
  }
  HADAL_CHECK(math != nullptr, "this build has no row passes for isa {}", static_cast<int>(isa));
  return *math;
}

const RowMath& fastest_row_math() { return row_math_for(available_isas().back()); }

}  // namespace hadal
