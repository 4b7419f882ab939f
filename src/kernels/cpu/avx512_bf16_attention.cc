// Softmax and value product of one attention segment. Lanes lie across the register, keys run downwards: maxima and
// sums need no horizontal steps, and each lane's bits depend on its own scores alone.
#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/avx512_bf16.h"
#include "kernels/cpu/avx512_math.h"

namespace hadal::cpu::avx512_bf16 {
namespace {

// Lanes that see key t.
inline __mmask16 visible(__m512i limits, int64_t t) {
  return _mm512_cmpgt_epi32_mask(limits, _mm512_set1_epi32(static_cast<int>(t)));
}

// 2^x for x <= 0, relative error below 3e-6, a thousandth of what rounding to BF16 does next; exactly 1 at 0.
inline __m512 exp2_ps(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);       // exact, |r| <= 1/2
  __m512 e = _mm512_set1_ps(1.33335581e-3f);  // Taylor: ln(2)^k / k!
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(9.61812911e-3f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(5.55041087e-2f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(2.40226507e-1f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(6.93147181e-1f));
  e = _mm512_fmadd_ps(e, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(e, n);
}

// Weights of 16 lanes for key t, rounded to BF16, in the low half of each 32-bit element; adds them to sum. max: of raw
// scores; unit: scale / ln 2.
inline __m512i weigh_key(const SoftmaxArgs& a, int64_t t, int64_t lane, __m512i limits, __m512 max, __m512 unit,
                         __m512& sum) {
  if (t >= a.num_keys) return _mm512_setzero_si512();
  const __mmask16 mask = visible(limits, t);
  const __m512 below = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, a.scores + t * kLanes + lane), max);
  const __m512 weight = _mm512_maskz_mov_ps(mask, exp2_ps(_mm512_mul_ps(below, unit)));
  const __m512i bits = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(weight));
  sum = _mm512_add_ps(sum, _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)));
  return bits;
}

void softmax_half(const SoftmaxArgs& a, int64_t lane) {
  const __m512i limits = _mm512_loadu_si512(a.limits + lane);
  __m512 max = _mm512_set1_ps(-__builtin_inff());
  for (int64_t t = 0; t < a.num_keys; ++t) {
    const __mmask16 mask = visible(limits, t);
    max = _mm512_mask_max_ps(max, mask, max, _mm512_maskz_loadu_ps(mask, a.scores + t * kLanes + lane));
  }
  const __m512 unit = _mm512_set1_ps(a.scale * 1.44269504f);
  __m512 sum = _mm512_setzero_ps();
  for (int64_t t = 0; t < a.num_keys; t += 2) {
    const __m512i even = weigh_key(a, t, lane, limits, max, unit, sum);
    const __m512i odd = weigh_key(a, t + 1, lane, limits, max, unit, sum);
    _mm512_storeu_si512(a.weights + (t / 2 * kLanes + lane) * 2, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
  }
  _mm512_storeu_ps(a.max + lane, _mm512_mul_ps(max, _mm512_set1_ps(a.scale)));
  _mm512_storeu_ps(a.sum + lane, sum);
}

}  // namespace

void softmax_segment(const SoftmaxArgs& args) {
  softmax_half(args, 0);
  if (args.num_lanes > 16) softmax_half(args, 16);
}

void weighted_values(const ValuesArgs& a) {
  static_assert(kValueLanes == 8);
  constexpr int64_t kAheadKeys = 16;  // rows lie a cache row apart: no hardware prefetcher follows them
  const __mmask32 columns = a.num_cols >= 32 ? 0xFFFFFFFFu : (1u << a.num_cols) - 1;
  __m512 low[kValueLanes], high[kValueLanes];
#pragma GCC unroll 8
  for (int l = 0; l < kValueLanes; ++l) low[l] = high[l] = _mm512_setzero_ps();
  for (int64_t t = 0; t < a.num_keys; t += 2) {
    if (t + kAheadKeys + 1 < a.num_keys) {
      _mm_prefetch(reinterpret_cast<const char*>(a.values[t + kAheadKeys] + a.col_begin), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(a.values[t + kAheadKeys + 1] + a.col_begin), _MM_HINT_T0);
    }
    const __m512i even = _mm512_maskz_loadu_epi16(columns, a.values[t] + a.col_begin);
    const __m512i odd =
        t + 1 < a.num_keys ? _mm512_maskz_loadu_epi16(columns, a.values[t + 1] + a.col_begin) : _mm512_setzero_si512();
    const __m512i value_low = _mm512_unpacklo_epi16(even, odd), value_high = _mm512_unpackhi_epi16(even, odd);
    const bf16_t* weights = a.weights + (t / 2 * kLanes + a.lane_begin) * 2;
#pragma GCC unroll 8
    for (int l = 0; l < kValueLanes; ++l) {
      int pair;
      __builtin_memcpy(&pair, weights + 2 * l, sizeof(pair));
      const __m512i weight = _mm512_set1_epi32(pair);
      low[l] = dot_pairs(low[l], value_low, weight);
      high[l] = dot_pairs(high[l], value_high, weight);
    }
  }
#pragma GCC unroll 8
  for (int l = 0; l < kValueLanes; ++l) {
    _mm512_storeu_ps(a.out + l * kLanes, first_half(low[l], high[l]));
    _mm512_storeu_ps(a.out + l * kLanes + 16, second_half(low[l], high[l]));
  }
}

}  // namespace hadal::cpu::avx512_bf16
