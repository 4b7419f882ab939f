// Vector operations on AVX-512 F, BW, VL and DQ; twin of avx2_vector.h, where each operation is described.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "tensor/bf16.h"

namespace hadal::cpu {
namespace {

struct Avx512 {
  using Float = __m512;
  using Mask = __mmask16;
  static constexpr int kWidth = 16;

  static Float zero() { return _mm512_setzero_ps(); }
  static Float set1(float x) { return _mm512_set1_ps(x); }
  static Float load(const float* at) { return _mm512_loadu_ps(at); }
  static void store(float* at, Float x) { _mm512_storeu_ps(at, x); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float sub(Float a, Float b) { return _mm512_sub_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float div(Float a, Float b) { return _mm512_div_ps(a, b); }
  static Float max(Float a, Float b) { return _mm512_max_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float accumulate(Float sum, Float a, Float b) { return fma(a, b, sum); }
  static Float min(Float a, Float b) { return _mm512_min_ps(a, b); }
  static Float round(Float x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static Float scale_by_power(Float x, Float n) { return _mm512_scalef_ps(x, n); }
  static Float low_bits_as_exponent(Float x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 23));
  }
  static float largest(Float x) { return _mm512_reduce_max_ps(x); }
  static float sum(Float x) { return _mm512_reduce_add_ps(x); }

  static Mask not_less(Float a, Float b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }
  static Mask below(const int32_t* limits, int64_t t) {
    return _mm512_cmpgt_epi32_mask(_mm512_loadu_si512(limits), _mm512_set1_epi32(static_cast<int>(t)));
  }
  static Float select(Mask mask, Float yes, Float no) { return _mm512_mask_blend_ps(mask, no, yes); }
  static Mask either(Mask a, Mask b) { return static_cast<Mask>(a | b); }
  static bool any(Mask mask) { return mask != 0; }

  static Float load_bf16(const bf16_t* at) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))), 16));
  }
  static __m512i bf16_bits(Float x) {
    const __m512i bits = _mm512_castps_si512(x), upper = _mm512_srli_epi32(bits, 16);
    const __m512i round_up = _mm512_add_epi32(_mm512_set1_epi32(0x7FFF), _mm512_and_si512(upper, _mm512_set1_epi32(1)));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, round_up), 16);
    return _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), upper, _mm512_set1_epi32(0x40));
  }
  static void store_bf16(bf16_t* at, Float x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm512_cvtepi32_epi16(bf16_bits(x)));
  }
  static void store_bf16_pairs(bf16_t* at, Float even, Float odd) {
    _mm512_storeu_si512(at, _mm512_or_si512(bf16_bits(even), _mm512_slli_epi32(bf16_bits(odd), 16)));
  }
  static Float round_to_bf16(Float x) { return _mm512_castsi512_ps(_mm512_slli_epi32(bf16_bits(x), 16)); }

  static Float bf16_even(const void* at) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(at), 16)); }
  static Float bf16_odd(const void* at) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_loadu_si512(at), _mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
  }

  // The first (second) of the two BF16 at `at`, in every element. A broadcast of its own in their place would cost
  // multiply-add slots whenever weights are decoded beside it (Zen 4: 15 % of a loop); compilers do not fold it into
  // the shift.
  static Float first_of_pair(const bf16_t* at) {
    Float x;
    __asm__("vpslld $16, %1%{1to16%}, %0" : "=v"(x) : "m"(*reinterpret_cast<const Pair*>(at)));
    return x;
  }
  static Float second_of_pair(const bf16_t* at) {
    Float x;
    __asm__("vpandd %1%{1to16%}, %2, %0"
            : "=v"(x)
            : "m"(*reinterpret_cast<const Pair*>(at)), "v"(_mm512_set1_epi32(static_cast<int>(0xFFFF0000))));
    return x;
  }

 private:
  struct [[gnu::may_alias]] Pair {
    bf16_t first, second;
  };
};

}  // namespace
}  // namespace hadal::cpu
