// Helpers shared by the AVX-512 files. Everything is static: see primitives.h on why nothing here may be shared with
// files compiled for the baseline.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace hadal::cpu::avx512_bf16 {

// Pairs of 16-bit values that were interleaved inside 128-bit lanes (vpunpckl, vpunpckh) leave the 32 outputs in the
// order 0-3 8-11 16-19 24-27 (low) and 4-7 12-15 20-23 28-31 (high). Puts them back.
static inline __m512 first_half(__m512 low, __m512 high) {
  const __m512i order = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  return _mm512_permutex2var_ps(low, order, high);
}
static inline __m512 second_half(__m512 low, __m512 high) {
  const __m512i order = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  return _mm512_permutex2var_ps(low, order, high);
}

static inline __m512 dot_pairs(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

// e^x, relative error below 2e-7; exactly 1 at 0, exactly 0 below -87 (-inf included), inf from 89 on, NaN for NaN.
// Range reduction by multiples of ln 2 (in two parts), Taylor terms up to r^7: |r| <= 0.347 leaves 5e-9.
static inline __m512 exp_ps(__m512 x) {
  x = _mm512_min_ps(_mm512_set1_ps(89.0f), x);  // the second operand survives when it is NaN
  const __mmask16 nonzero = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 e = _mm512_set1_ps(1.0f / 5040);
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1.0f / 720));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1.0f / 120));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1.0f / 24));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1.0f / 6));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(0.5f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1.0f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1.0f));
  return _mm512_maskz_scalef_ps(nonzero, e, n);
}

// Elements [begin, begin + 16) of n that exist.
static inline __mmask16 tail_mask(int64_t n, int64_t begin) {
  const int64_t left = n - begin;
  return left >= 16 ? 0xFFFF : static_cast<__mmask16>(left <= 0 ? 0 : (1u << left) - 1);
}

}  // namespace hadal::cpu::avx512_bf16
