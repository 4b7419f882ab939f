#include "bench/read_loop.h"

#if defined(__AVX512F__) && defined(__AVX512VL__)
#include <immintrin.h>

namespace hadal {
namespace {

float multiply_fp32(int64_t num_rounds) {
  constexpr int kChains = 16;
  __m512 sums[kChains];
  const __m512 factor = _mm512_set1_ps(0.75F), term = _mm512_set1_ps(0.25F);
  for (int i = 0; i < kChains; ++i) sums[i] = term;
  for (int64_t round = 0; round < num_rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_fmadd_ps(sums[i], factor, term);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

constexpr ReadLoop kReads[] = {HADAL_READ_LOOPS("avx512", Vectors512), {nullptr, nullptr}};
constexpr MultiplyLoop kMultiplies[] = {{MultiplyKind::kFp32, "avx512 fma", 2.0 * 16 * 16, multiply_fp32},
                                        {MultiplyKind::kFp32, nullptr, 0, nullptr}};

}  // namespace

const ProbeLoops kAvx512Probes = {kReads, kMultiplies};

}  // namespace hadal

#else

namespace hadal {
const ProbeLoops kAvx512Probes = {kNoReads, kNoMultiplies};
}  // namespace hadal

#endif
