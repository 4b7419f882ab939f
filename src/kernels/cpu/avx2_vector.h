// Vector operations on AVX2 with FMA and F16C, as fp32_dot.h and fp32_attention.h ask for them. Everything has internal
// linkage: see primitives.h on why nothing here may be shared with files compiled for the baseline.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "tensor/bf16.h"

namespace hadal::cpu {
namespace {

struct [[gnu::may_alias]] Words {
  uint16_t words[16];
};
alignas(32) constexpr Words kUpperHalves = {
    {0, 0xFFFF, 0, 0xFFFF, 0, 0xFFFF, 0, 0xFFFF, 0, 0xFFFF, 0, 0xFFFF, 0, 0xFFFF, 0, 0xFFFF}};

struct Avx2 {
  using Float = __m256;
  using Mask = __m256;  // all bits of an element, or none
  static constexpr int kWidth = 8;

  static Float zero() { return _mm256_setzero_ps(); }
  static Float set1(float x) { return _mm256_set1_ps(x); }
  static Float load(const float* at) { return _mm256_loadu_ps(at); }
  static void store(float* at, Float x) { _mm256_storeu_ps(at, x); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float sub(Float a, Float b) { return _mm256_sub_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Float div(Float a, Float b) { return _mm256_div_ps(a, b); }
  static Float max(Float a, Float b) { return _mm256_max_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  // sum + a * b. Written out, since GCC otherwise picks forms that overwrite a factor and runs out of registers.
  static Float accumulate(Float sum, Float a, Float b) {
    __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
  }
  // The second operand where either is NaN.
  static Float min(Float a, Float b) { return _mm256_min_ps(a, b); }
  static Float round(Float x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

  // x * 2^n for an integer |n| <= 128, in two factors since 2^128 alone is no float.
  static Float scale_by_power(Float x, Float n) {
    const __m256i exponent = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(exponent, 1);
    const auto power = [](__m256i e) {
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
    };
    return _mm256_mul_ps(_mm256_mul_ps(x, power(half)), power(_mm256_sub_epi32(exponent, half)));
  }

  // The low 9 bits of each element's bits, moved to where sign and exponent lie.
  static Float low_bits_as_exponent(Float x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 23));
  }

  // Over all elements, as a binary tree.
  static float largest(Float x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }
  static float sum(Float x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }

  static Mask not_less(Float a, Float b) { return _mm256_cmp_ps(a, b, _CMP_NLT_UQ); }
  // Where t < limits[i].
  static Mask below(const int32_t* limits, int64_t t) {
    const __m256i bounds = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(limits));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(bounds, _mm256_set1_epi32(static_cast<int>(t))));
  }
  static Float select(Mask mask, Float yes, Float no) { return _mm256_blendv_ps(no, yes, mask); }
  static Mask either(Mask a, Mask b) { return _mm256_or_ps(a, b); }
  static bool any(Mask mask) { return _mm256_movemask_ps(mask) != 0; }

  static Float load_bf16(const bf16_t* at) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))), 16));
  }
  // Bits of x rounded to BF16 in the low half of each element; as f32_to_bf16.
  static __m256i bf16_bits(Float x) {
    const __m256i bits = _mm256_castps_si256(x), upper = _mm256_srli_epi32(bits, 16);
    const __m256i round_up = _mm256_add_epi32(_mm256_set1_epi32(0x7FFF), _mm256_and_si256(upper, _mm256_set1_epi32(1)));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, round_up), 16);
    const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, quiet, is_nan);
  }
  static void store_bf16(bf16_t* at, Float x) {
    const __m256i bits = bf16_bits(x);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at),
                     _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1)));
  }
  // The BF16 values of `even` and `odd` side by side, element by element.
  static void store_bf16_pairs(bf16_t* at, Float even, Float odd) {
    const __m256i pairs = _mm256_or_si256(bf16_bits(even), _mm256_slli_epi32(bf16_bits(odd), 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), pairs);
  }
  static Float round_to_bf16(Float x) { return _mm256_castsi256_ps(_mm256_slli_epi32(bf16_bits(x), 16)); }

  // BF16 pairs of kWidth rows: the first, or the second of each.
  static Float bf16_even(const void* at) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(at)), 16));
  }
  // Loads and masks anew: whatever the compiler kept in a register for it would cost the loop around it a spilled sum.
  static Float bf16_odd(const void* at) {
    Float odd;
    __asm__("vmovdqu %1, %0\n\tvpand %2, %0, %0" : "=&x"(odd) : "m"(*static_cast<const Words*>(at)), "m"(kUpperHalves));
    return odd;
  }
};

}  // namespace
}  // namespace hadal::cpu
