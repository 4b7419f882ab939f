// What AVX2 files share on FP8 panels: rows that met a NaN code, and walking pairs of columns. See fp32_dot.h on codes.
//
// Internal linkage throughout: see primitives.h.
#pragma once

#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/fp32_dot.h"

namespace hadal::cpu {
namespace {

// Codes of a pair that count: both, or one column's.
constexpr uint32_t kBothCodes = 0xFFFFFFFF, kEvenCodes = 0x00FF00FF, kOddCodes = 0xFF00FF00;

// f(which) for each pair that [k_begin, k_end) touches.
template <typename F>
[[gnu::always_inline]] inline void for_each_pair(int64_t k_begin, int64_t k_end, const F& f) {
  int64_t k = k_begin;
  if (k % 2 != 0) {
    f(kOddCodes);
    ++k;
  }
  for (; k + 2 <= k_end; k += 2) f(kBothCodes);
  if (k < k_end) f(kEvenCodes);
}

// 16 rows x 2 k, one k of them as FP16: one multiplication moves all bits of a code.
struct F8Halves {
  static __m256i even(__m256i codes) { return times(codes, 0x0080); }
  static __m256i odd(__m256i codes) { return times(codes, 0x8000); }
  static __m256i times(__m256i codes, int factors) {
    const __m256i moved = _mm256_maddubs_epi16(_mm256_set1_epi16(static_cast<int16_t>(factors)), codes);
    return _mm256_and_si256(moved, _mm256_set1_epi16(kF8Bits));
  }
};

// The largest doubled codes of 16 rows x 2 k each.
struct F8Seen {
  __m256i largest[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};

  [[gnu::always_inline]] void see(int half, __m256i codes, uint32_t counted) {
    if (counted != kBothCodes) codes = _mm256_and_si256(codes, _mm256_set1_epi32(static_cast<int>(counted)));
    largest[half] = _mm256_max_epu8(largest[half], _mm256_add_epi8(codes, codes));
  }
  // What the sums of unit u (8 rows) are multiplied by.
  Avx2::Float multiplier(float scale, int u) const {
    const __m256i of_half = largest[u / 2];
    const __m128i codes = u % 2 != 0 ? _mm256_extracti128_si256(of_half, 1) : _mm256_castsi256_si128(of_half);
    const __m128i nan_bytes = _mm_cmpeq_epi8(codes, _mm_set1_epi8(kTwiceF8NaN));
    const __m256i clean = _mm256_cvtepi16_epi32(_mm_cmpeq_epi16(nan_bytes, _mm_setzero_si128()));
    const __m256i nans = _mm256_xor_si256(clean, _mm256_set1_epi32(-1));  // all bits set is a NaN
    return _mm256_or_ps(Avx2::set1(scale * kF8Unit), _mm256_castsi256_ps(nans));
  }
};

}  // namespace
}  // namespace hadal::cpu
