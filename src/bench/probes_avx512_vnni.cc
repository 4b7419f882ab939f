#include "bench/probes.h"

#if defined(__AVX512VNNI__)
#include <immintrin.h>

namespace hadal {
namespace {

float multiply_int8(int64_t num_rounds) {
  constexpr int kChains = 16;
  __m512i sums[kChains];
  const __m512i factor = _mm512_set1_epi8(1);
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_setzero_si512();
  for (int64_t round = 0; round < num_rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], factor, factor);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
  return static_cast<float>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sums[0])));
}

constexpr const ReadLoop* kReads = kNoReads;
constexpr MultiplyLoop kMultiplies[] = {{MultiplyKind::kInt8, "avx512 vpdpbusd", 2.0 * 64 * 16, multiply_int8},
                                        {MultiplyKind::kFp32, nullptr, 0, nullptr}};

}  // namespace

const ProbeLoops kAvx512VnniProbes = {kReads, kMultiplies};

}  // namespace hadal

#else

namespace hadal {
const ProbeLoops kAvx512VnniProbes = {kNoReads, kNoMultiplies};
}  // namespace hadal

#endif
