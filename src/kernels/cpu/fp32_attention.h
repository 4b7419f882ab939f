// Softmax and value product of one attention segment, and the element-wise primitives, in FP32 for any vector type V
// (avx2_vector.h). In the softmax lanes lie across the register and keys run downwards: maxima and sums need no
// horizontal steps, and each lane's bits depend on its own scores alone.
//
// Internal linkage throughout: see primitives.h.
#pragma once

#include "kernels/cpu/primitives.h"

namespace hadal::cpu {
namespace {

// e^x, relative error below 2e-7; exactly 1 at 0, exactly 0 below -87 (-inf included), inf from 89 on, NaN for NaN.
// Range reduction by multiples of ln 2 (in two parts), Taylor terms up to r^7: |r| <= 0.347 leaves 5e-9.
template <typename V>
inline typename V::Float exp_ps(typename V::Float x) {
  x = V::min(V::set1(89.0f), x);  // keeps a NaN
  const typename V::Mask nonzero = V::not_less(x, V::set1(-87.0f));
  const typename V::Float bounded = V::max(V::set1(-88.0f), x);
  const typename V::Float n = V::round(V::mul(bounded, V::set1(1.44269504f)));
  typename V::Float r = V::fma(n, V::set1(-0.693359375f), bounded);
  r = V::fma(n, V::set1(2.12194440e-4f), r);
  typename V::Float e = V::set1(1.0f / 5040);
  e = V::fma(e, r, V::set1(1.0f / 720));
  e = V::fma(e, r, V::set1(1.0f / 120));
  e = V::fma(e, r, V::set1(1.0f / 24));
  e = V::fma(e, r, V::set1(1.0f / 6));
  e = V::fma(e, r, V::set1(0.5f));
  e = V::fma(e, r, V::set1(1.0f));
  e = V::fma(e, r, V::set1(1.0f));
  return V::select(nonzero, V::scale_by_power(e, n), V::zero());
}

template <typename V>
inline typename V::Float scaled_scores(const SoftmaxArgs& a, int64_t t, int64_t lane) {
  return V::mul(V::load(a.scores + t * kLanes + lane), V::set1(a.scale));
}

// Weights of V::kWidth lanes for key t, rounded to BF16; adds them to sum.
template <typename V>
inline typename V::Float weigh_key(const SoftmaxArgs& a, int64_t t, int64_t lane, typename V::Float max,
                                   typename V::Float& sum) {
  if (t >= a.num_keys) return V::zero();
  const typename V::Float weight = exp_ps<V>(V::sub(scaled_scores<V>(a, t, lane), max));
  const typename V::Float rounded = V::round_to_bf16(V::select(V::below(a.limits + lane, t), weight, V::zero()));
  sum = V::add(sum, rounded);
  return rounded;
}

template <typename V>
inline void softmax_lanes(const SoftmaxArgs& a, int64_t lane) {
  typename V::Float segment_max = V::set1(-__builtin_inff());
  for (int64_t t = 0; t < a.num_keys; ++t) {
    // The second operand of max survives a NaN; scores that a lane does not see may be NaN.
    const typename V::Float larger = V::max(scaled_scores<V>(a, t, lane), segment_max);
    segment_max = V::select(V::below(a.limits + lane, t), larger, segment_max);
  }
  typename V::Float segment_sum = V::zero();
  for (int64_t t = 0; t < a.num_keys; t += 2) {
    const typename V::Float even = weigh_key<V>(a, t, lane, segment_max, segment_sum);
    const typename V::Float odd = weigh_key<V>(a, t + 1, lane, segment_max, segment_sum);
    V::store_bf16_pairs(a.weights + (t / 2 * kLanes + lane) * 2, even, odd);
  }
  V::store(a.max + lane, segment_max);
  V::store(a.sum + lane, segment_sum);
}

template <typename V>
inline void softmax_segment_in(const SoftmaxArgs& args) {
  for (int64_t lane = 0; lane < args.num_lanes; lane += V::kWidth) softmax_lanes<V>(args, lane);
}

// The first n elements from `at`, fewer than V::kWidth and perhaps none; zeros behind them. Reads nothing else.
template <typename V>
inline typename V::Float load_some_bf16(const bf16_t* at, int64_t n) {
  bf16_t padded[V::kWidth] = {};
  for (int64_t i = 0; i < n; ++i) padded[i] = at[i];
  return V::load_bf16(padded);
}

// out[l][c] += sum over keys [first, last) of weight x value, for kTileLanes lanes from `lane` on and kUnits x
// V::kWidth columns from `col` on, of which the last may lie outside (kCut). first is even.
template <typename I, int kUnits, bool kCut>
[[gnu::noinline]] void add_values(const ValuesArgs& a, const typename I::Weights& weights, int64_t first, int64_t last,
                                  int lane, int64_t col) {
  using V = typename I::Vector;
  constexpr int64_t kAheadKeys = 16;  // rows lie a cache row apart: no hardware prefetcher follows them
  typename V::Float sums[I::kTileLanes][kUnits], value[kUnits];
  float* out = a.out + lane * kLanes + col;
#pragma GCC unroll 8
  for (int l = 0; l < I::kTileLanes; ++l) {
#pragma GCC unroll 2
    for (int u = 0; u < kUnits; ++u) sums[l][u] = V::load(out + l * kLanes + u * V::kWidth);
  }
  const auto add = [&](int64_t t, const auto& weight_of) __attribute__((always_inline)) {
    const bf16_t* row = a.values[t] + a.col_begin + col;
    if (t + kAheadKeys < a.num_keys) __builtin_prefetch(a.values[t + kAheadKeys] + a.col_begin + col);
#pragma GCC unroll 2
    for (int u = 0; u < kUnits; ++u) {
      const int64_t left = a.num_cols - col - u * V::kWidth;
      value[u] =
          kCut && left < V::kWidth ? load_some_bf16<V>(row + u * V::kWidth, left) : V::load_bf16(row + u * V::kWidth);
    }
#pragma GCC unroll 8
    for (int l = 0; l < I::kTileLanes; ++l) {
      const typename V::Float weight = weight_of(lane + l);
#pragma GCC unroll 2
      for (int u = 0; u < kUnits; ++u) sums[l][u] = V::accumulate(sums[l][u], value[u], weight);
    }
  };
  int64_t t = first;
  for (; t + 2 <= last; t += 2) {
    add(
        t, [&](int l) __attribute__((always_inline)) { return weights.even(t, l); });
    add(
        t + 1, [&](int l) __attribute__((always_inline)) { return weights.odd(t, l); });
  }
  if (t < last)
    add(
        t, [&](int l) __attribute__((always_inline)) { return weights.even(t, l); });
#pragma GCC unroll 8
  for (int l = 0; l < I::kTileLanes; ++l) {
#pragma GCC unroll 2
    for (int u = 0; u < kUnits; ++u) V::store(out + l * kLanes + u * V::kWidth, sums[l][u]);
  }
}

template <typename I>
inline void weighted_values_in(const ValuesArgs& a) {
  using V = typename I::Vector;
  constexpr int kUnits = 2;
  constexpr int64_t kCols = kUnits * V::kWidth;
  for (int i = 0; i < kValueLanes * kLanes; i += V::kWidth) V::store(a.out + i, V::zero());
  for (int64_t first = 0; first < a.num_keys; first += kBlockCols) {
    const int64_t last = a.num_keys < first + kBlockCols ? a.num_keys : first + kBlockCols;
    const typename I::Weights weights(a, first, last - first);
    for (int64_t col = 0; col < a.num_cols; col += kCols) {
      for (int lane = 0; lane < kValueLanes; lane += I::kTileLanes) {
        if (col + kCols <= a.num_cols) {
          add_values<I, kUnits, false>(a, weights, first, last, lane, col);
        } else {
          add_values<I, kUnits, true>(a, weights, first, last, lane, col);
        }
      }
    }
  }
}

// out[0 .. n) = f(i) for i a multiple of V::kWidth, rounded to BF16.
template <typename V, typename F>
inline void round_each(int64_t n, bf16_t* out, F f) {
  int64_t i = 0;
  for (; i + V::kWidth <= n; i += V::kWidth) V::store_bf16(out + i, f(i, V::kWidth));
  if (i == n) return;
  bf16_t last[V::kWidth];
  V::store_bf16(last, f(i, n - i));
  for (int64_t j = i; j < n; ++j) out[j] = last[j - i];
}

// The first n elements from `at`; zeros behind them.
template <typename V>
inline typename V::Float load_some(const float* at, int64_t n) {
  if (n >= V::kWidth) return V::load(at);
  float padded[V::kWidth] = {};
  for (int64_t i = 0; i < n; ++i) padded[i] = at[i];
  return V::load(padded);
}

template <typename V>
inline void silu_mul_in(const float* gate, const float* up, int64_t n, bf16_t* out) {
  round_each<V>(n, out, [&](int64_t i, int64_t count) {
    const typename V::Float z = load_some<V>(gate + i, count);
    const typename V::Float denominator = V::add(V::set1(1.0f), exp_ps<V>(V::sub(V::zero(), z)));
    return V::mul(V::div(z, denominator), load_some<V>(up + i, count));
  });
}

template <typename V>
inline void round_row_in(const float* in, int64_t n, bf16_t* out) {
  round_each<V>(n, out, [&](int64_t i, int64_t count) { return load_some<V>(in + i, count); });
}

}  // namespace
}  // namespace hadal::cpu
