#include "bench/read_loop.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

namespace hadal {
namespace {

float multiply_fp32(int64_t num_rounds) {
  constexpr int kChains = 12;
  __m256 sums[kChains];
  const __m256 factor = _mm256_set1_ps(0.75F), term = _mm256_set1_ps(0.25F);
  for (int i = 0; i < kChains; ++i) sums[i] = term;
  for (int64_t round = 0; round < num_rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = _mm256_fmadd_ps(sums[i], factor, term);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  return _mm256_cvtss_f32(sums[0]);
}

// Without VNNI a byte product is three instructions: pairs to 16 bit, pairs to 32 bit, add.
float multiply_int8(int64_t num_rounds) {
  constexpr int kChains = 8;
  __m256i sums[kChains];
  __m256i bytes = _mm256_set1_epi8(1);
  const __m256i factor = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_setzero_si256();
  for (int64_t round = 0; round < num_rounds; ++round) {
#pragma GCC unroll 8
    for (int i = 0; i < kChains; ++i) {
      asm volatile("" : "+x"(bytes));  // a new operand each time, as far as the compiler knows
      const __m256i pairs = _mm256_maddubs_epi16(bytes, factor);
      sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(pairs, ones));
    }
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm256_add_epi32(sums[0], sums[i]);
  return static_cast<float>(_mm256_cvtsi256_si32(sums[0]));
}

constexpr ReadLoop kReads[] = {HADAL_READ_LOOPS("avx2", Vectors256), {nullptr, nullptr}};
constexpr MultiplyLoop kMultiplies[] = {{MultiplyKind::kFp32, "avx2 fma", 2.0 * 8 * 12, multiply_fp32},
                                        {MultiplyKind::kInt8, "avx2 maddubs", 2.0 * 32 * 8, multiply_int8},
                                        {MultiplyKind::kFp32, nullptr, 0, nullptr}};

}  // namespace

const ProbeLoops kAvx2Probes = {kReads, kMultiplies};

}  // namespace hadal

#else

namespace hadal {
const ProbeLoops kAvx2Probes = {kNoReads, kNoMultiplies};
}  // namespace hadal

#endif
