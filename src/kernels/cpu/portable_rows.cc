// The passes over rows of logits on four lanes of the compilers' own vectors: every target has them.
#include <cstring>

#include "kernels/cpu/portable.h"
#include "kernels/cpu/row_passes.h"

namespace hadal::cpu::portable {
namespace {

using F4 = float __attribute__((vector_size(16)));
using I4 = int32_t __attribute__((vector_size(16)));

// As avx2_vector.h describes its operations.
struct Four {
  using Float = F4;
  using Mask = I4;
  static constexpr int kWidth = 4;

  static F4 zero() { return F4{}; }
  static F4 set1(float x) { return F4{x, x, x, x}; }
  static F4 load(const float* at) {
    F4 x;
    std::memcpy(&x, at, sizeof x);
    return x;
  }
  static void store(float* at, F4 x) { std::memcpy(at, &x, sizeof x); }
  static F4 add(F4 a, F4 b) { return a + b; }
  static F4 sub(F4 a, F4 b) { return a - b; }
  static F4 mul(F4 a, F4 b) { return a * b; }
  static F4 fma(F4 a, F4 b, F4 c) { return a * b + c; }
  static F4 max(F4 a, F4 b) { return a > b ? a : b; }
  static F4 low_bits_as_exponent(F4 x) { return (F4)((I4)x << 23); }
  static float largest(F4 x) {
    const float low = x[0] > x[2] ? x[0] : x[2], high = x[1] > x[3] ? x[1] : x[3];
    return low > high ? low : high;
  }
  static float sum(F4 x) { return (x[0] + x[2]) + (x[1] + x[3]); }

  static I4 not_less(F4 a, F4 b) { return ~(a < b); }
  static I4 either(I4 a, I4 b) { return a | b; }
  static bool any(I4 mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }
};

}  // namespace

const RowMath kRowMath = kRowMathIn<Four>;

}  // namespace hadal::cpu::portable
