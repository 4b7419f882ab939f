// The row passes of kernels/row_math.h in FP32, for any vector type V (avx2_vector.h). Internal linkage throughout: see
// primitives.h.
#pragma once

#include "kernels/row_math.h"

namespace hadal::cpu {
namespace {

constexpr float kInfinity = __builtin_inff();
constexpr float kLargestFloat = 3.402823466e38f;

// 2^t = mantissa * power for t <= 0: exactly 1 at 0, exactly 0 below -127 (-infinity included), NaN for NaN. The
// polynomial has the least relative error on [-1/2, 1/2] among those of degree 5 that are 1 at 0: 2^-23.1 with these
// coefficients.
template <typename V>
struct Exp2 {
  typename V::Float mantissa, power;

  explicit Exp2(typename V::Float t) {
    // 1.5 * 2^23 + 127: adding it rounds to an integer n and leaves n + 127, the exponent field of 2^n, in the low
    // bits; 0 for n = -127.
    const typename V::Float shift = V::set1(12583039.0f);
    const typename V::Float bounded = V::max(V::set1(-127.0f), t);
    const typename V::Float shifted = V::add(bounded, shift);
    const typename V::Float r = V::sub(bounded, V::sub(shifted, shift));  // exact
    typename V::Float e = V::set1(1.32647273e-3f);
    e = V::fma(e, r, V::set1(9.67151299e-3f));
    e = V::fma(e, r, V::set1(5.55073358e-2f));
    e = V::fma(e, r, V::set1(2.40222424e-1f));
    e = V::fma(e, r, V::set1(6.93147004e-1f));
    mantissa = V::fma(e, r, V::set1(1.0f));
    power = V::low_bits_as_exponent(shifted);
  }
};

// unit: scale / ln 2.
template <typename V>
inline Exp2<V> exp_below(const float* at, typename V::Float max, typename V::Float unit) {
  return Exp2<V>(V::mul(V::sub(V::load(at), max), unit));
}

// Of a whole block. Two chains, since one would wait for itself.
template <typename V>
inline float max_of_block(const float* at) {
  typename V::Float even = V::load(at), odd = V::load(at + V::kWidth);
#pragma GCC unroll 8
  for (int64_t i = 2 * V::kWidth; i < kLogitBlock; i += 2 * V::kWidth) {
    even = V::max(V::load(at + i), even);
    odd = V::max(V::load(at + i + V::kWidth), odd);
  }
  return V::largest(V::max(even, odd));
}

// Partial sums over a whole block.
template <typename V>
inline typename V::Float exp_sums(const float* at, float block_max, typename V::Float unit) {
  // Infinity less infinity would be no number.
  const typename V::Float max = V::set1(block_max < -kLargestFloat ? -kLargestFloat : block_max);
  typename V::Float even = V::zero(), odd = V::zero();
#pragma GCC unroll 4
  for (int64_t i = 0; i < kLogitBlock; i += 2 * V::kWidth) {
    const Exp2<V> first = exp_below<V>(at + i, max, unit), second = exp_below<V>(at + i + V::kWidth, max, unit);
    even = V::fma(first.mantissa, first.power, even);
    odd = V::fma(second.mantissa, second.power, odd);
  }
  return V::add(even, odd);
}

// A short last block, filled up with what changes neither maximum nor sum.
struct PaddedBlock {
  float values[kLogitBlock];

  PaddedBlock(const float* at, int64_t n) {
    for (int64_t i = 0; i < kLogitBlock; ++i) values[i] = i < n ? at[i] : -kInfinity;
  }
};

// bad, and where any value of the block is NaN or infinity.
template <typename V>
inline typename V::Mask find_bad(const float* block, typename V::Mask bad) {
  for (int64_t i = 0; i < kLogitBlock; i += V::kWidth) {
    bad = V::either(bad, V::not_less(V::load(block + i), V::set1(kInfinity)));
  }
  return bad;
}

template <typename V>
inline bool block_maxima_in(const float* row, int64_t n, float* maxima) {
  typename V::Mask bad = V::not_less(V::zero(), V::set1(kInfinity));  // none
  int64_t i = 0;
  for (; i + kLogitBlock <= n; i += kLogitBlock) {
    *maxima++ = max_of_block<V>(row + i);
    bad = find_bad<V>(row + i, bad);
  }
  if (i < n) {
    const PaddedBlock last(row + i, n - i);
    *maxima = max_of_block<V>(last.values);
    bad = find_bad<V>(last.values, bad);
  }
  return !V::any(bad);
}

template <typename V>
inline bool block_softmax_in(const float* row, int64_t n, float scale, float* maxima, float* sums) {
  const typename V::Float unit = V::set1(scale * 1.44269504f);
  typename V::Float total = V::zero();  // NaN once some sum is: from a NaN, or infinity less infinity
  const int64_t num_whole = n / kLogitBlock;
  // One block ahead: the maximum is there when its exponentials begin, and memory is read meanwhile.
  float next = num_whole > 0 ? max_of_block<V>(row) : 0;
  for (int64_t b = 0; b < num_whole; ++b) {
    const float* block = row + b * kLogitBlock;
    maxima[b] = next;
    if (b + 1 < num_whole) next = max_of_block<V>(block + kLogitBlock);
    const typename V::Float partial = exp_sums<V>(block, maxima[b], unit);
    total = V::add(total, partial);
    sums[b] = V::sum(partial);
  }
  if (const int64_t left = n - num_whole * kLogitBlock; left > 0) {
    const PaddedBlock last(row + n - left, left);
    maxima[num_whole] = max_of_block<V>(last.values);
    const typename V::Float partial = exp_sums<V>(last.values, maxima[num_whole], unit);
    total = V::add(total, partial);
    sums[num_whole] = V::sum(partial);
  }
  const float all = V::sum(total);
  return all == all;
}

template <typename V>
inline void exp_row_in(const float* row, int64_t n, float max, float scale, float* out) {
  const typename V::Float top = V::set1(max), unit = V::set1(scale * 1.44269504f);
  const auto exp_of = [&](const float* from, float* to) __attribute__((always_inline)) {
    const Exp2<V> e = exp_below<V>(from, top, unit);
    V::store(to, V::mul(e.mantissa, e.power));
  };
  int64_t i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth) exp_of(row + i, out + i);
  if (i == n) return;
  float last[V::kWidth] = {};
  for (int64_t j = i; j < n; ++j) last[j - i] = row[j];
  exp_of(last, last);
  for (int64_t j = i; j < n; ++j) out[j] = last[j - i];
}

template <typename V>
constexpr RowMath kRowMathIn = {block_maxima_in<V>, block_softmax_in<V>, exp_row_in<V>};

}  // namespace
}  // namespace hadal::cpu
