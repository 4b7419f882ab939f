// Panels times token groups in FP32, for any instruction set I (avx2.cc, avx512.cc): its vectors, how it reads
// activations and weights, and how many sums it keeps in registers. Every sum runs over k ascending, one multiply-add
// per k and one per scale block, whatever the size of the group.
//
// Internal linkage throughout: see primitives.h.
#pragma once

#include "kernels/cpu/primitives.h"

namespace hadal::cpu {
namespace {

constexpr int64_t kPrefetchBytes = 4096;  // one page ahead: measured best for one linear stream per core
constexpr int64_t kLineBytes = 64;

inline void prefetch_ahead(const char* at, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += kLineBytes) __builtin_prefetch(at + kPrefetchBytes + line);
}

// Weights of one block of a panel: V::kWidth rows ("unit" u: rows u * V::kWidth on) for one k. even and odd take the
// pair's first k and return the weights for it or for its second; single returns those of k itself, which may be
// without its partner: then nothing of the partner may be noticed. multiplier is what the block's sums are multiplied
// by, given its scale.

template <typename V>
struct Bf16Rows {
  static constexpr bool kScaled = false;
  static constexpr int64_t kPairBytes = 4 * kLanes, kUnitBytes = 4 * V::kWidth;
  const char* panel;

  Bf16Rows(const char* panel_in, int64_t, int64_t) : panel(panel_in) {}
  const char* at(int64_t k, int u) const { return panel + k / 2 * kPairBytes + u * kUnitBytes; }
  void prefetch(int64_t k) const { prefetch_ahead(at(k, 0), kPairBytes); }
  typename V::Float even(int64_t k, int u) const { return V::bf16_even(at(k, u)); }
  typename V::Float odd(int64_t k, int u) const { return V::bf16_odd(at(k, u)); }
  typename V::Float single(int64_t k, int u) const { return k % 2 != 0 ? odd(k, u) : even(k, u); }
};

// FP8, decoded as it is used: a code becomes an FP16 by moving its bits, and FP32 by conversion, which leaves a factor
// of 2^8 to the multiplier. That makes numbers of the NaN codes, so rows that meet one get a NaN multiplier.
template <typename V, bool kByShift>
struct F8Rows {
  static constexpr bool kScaled = true;
  static constexpr float kUnit = 256.0f;
  static constexpr int64_t kPairBytes = 2 * kLanes, kUnitBytes = 2 * V::kWidth;
  const char* panel;
  typename V::Codes seen[kLanes / V::kWidth];

  F8Rows(const char* panel_in, int64_t, int64_t) : panel(panel_in) {
    for (int u = 0; u < kLanes / V::kWidth; ++u) seen[u] = V::no_codes();
  }
  const char* at(int64_t k, int u) const { return panel + k / 2 * kPairBytes + u * kUnitBytes; }
  void prefetch(int64_t k) const { prefetch_ahead(at(k, 0), kPairBytes); }
  typename V::Float even(int64_t k, int u) {
    const typename V::Codes codes = V::load_codes(at(k, u));
    seen[u] = V::see_codes(seen[u], codes);  // both of the pair
    return V::template f8_even<kByShift>(codes);
  }
  typename V::Float odd(int64_t k, int u) const { return V::template f8_odd<kByShift>(V::load_codes(at(k, u))); }
  typename V::Float single(int64_t k, int u) {
    const typename V::Codes codes = V::load_codes(at(k, u));
    seen[u] = V::see_codes(seen[u], V::mask_codes(codes, k % 2 != 0 ? 0xFF00 : 0x00FF));
    return k % 2 != 0 ? V::template f8_odd<kByShift>(codes) : V::template f8_even<kByShift>(codes);
  }
  typename V::Float multiplier(float scale, int u) const { return V::poison(V::set1(scale * kUnit), seen[u]); }
};

// totals[t][row] += columns [k_begin, k_end), within one block, for tokens t0 .. t0 + kTokens - 1 and kUnits units of
// rows from unit0 on.
template <typename V, int kTokens, int kUnits, typename Rows, typename Factors>
[[gnu::always_inline]] inline void add_tile(Rows& rows, const Factors& factors, const float* scales, int64_t k_begin,
                                            int64_t k_end, int t0, int unit0, float* totals) {
  typename V::Float sums[kTokens][kUnits], w[kUnits];
  float* out = totals + t0 * kLanes + unit0 * V::kWidth;
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnits; ++u) {
      sums[t][u] = Rows::kScaled ? V::zero() : V::load(out + t * kLanes + u * V::kWidth);
    }
  }
  const auto add = [&](const auto& factor_of) __attribute__((always_inline)) {
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      const typename V::Float factor = factor_of(t0 + t);
#pragma GCC unroll 4
      for (int u = 0; u < kUnits; ++u) V::accumulate(sums[t][u], w[u], factor);
    }
  };
  const auto add_single = [&](int64_t k) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnits; ++u) w[u] = rows.single(k, unit0 + u);
    add([&](int t) __attribute__((always_inline)) { return factors.single(t, k); });
  };
  int64_t k = k_begin;
  if (k % 2 != 0) add_single(k++);
  for (; k + 2 <= k_end; k += 2) {
    if (t0 == 0 && unit0 == 0) rows.prefetch(k);
#pragma GCC unroll 4
    for (int u = 0; u < kUnits; ++u) w[u] = rows.even(k, unit0 + u);
    add([&](int t) __attribute__((always_inline)) { return factors.even(t, k); });
#pragma GCC unroll 4
    for (int u = 0; u < kUnits; ++u) w[u] = rows.odd(k, unit0 + u);
    add([&](int t) __attribute__((always_inline)) { return factors.odd(t, k); });
  }
  if (k < k_end) add_single(k);

#pragma GCC unroll 4
  for (int u = 0; u < kUnits; ++u) {
    typename V::Float multiplier = V::zero();
    if constexpr (Rows::kScaled) multiplier = rows.multiplier(scales[k_begin / kBlockCols], unit0 + u);
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      float* total = out + t * kLanes + u * V::kWidth;
      V::store(total, Rows::kScaled ? V::fma(sums[t][u], multiplier, V::load(total)) : sums[t][u]);
    }
  }
}

// All rows for tokens t0 on, kLeft of them, in tiles of nearly equal size.
template <typename I, int kLeft, typename Rows, typename Factors>
[[gnu::always_inline]] inline void add_tiles(Rows& rows, const Factors& factors, const float* scales, int64_t k_begin,
                                             int64_t k_end, int t0, float* totals) {
  if constexpr (kLeft > 0) {
    using V = typename I::Vector;
    constexpr int kTiles = (kLeft + I::kTileTokens - 1) / I::kTileTokens;
    constexpr int kTokens = (kLeft + kTiles - 1) / kTiles, kUnits = I::units_for(kTokens);
    for (int unit = 0; unit < kLanes / V::kWidth; unit += kUnits) {
      add_tile<V, kTokens, kUnits>(rows, factors, scales, k_begin, k_end, t0, unit, totals);
    }
    add_tiles<I, kLeft - kTokens>(rows, factors, scales, k_begin, k_end, t0 + kTokens, totals);
  }
}

// totals[t][0..31] = columns [k_begin, k_end).
template <typename I, typename Rows, int kTokens>
inline void dot_range(const void* panel, const float* scales, int64_t k_begin, int64_t k_end, const bf16_t* const* x,
                      float* totals) {
  using V = typename I::Vector;
  for (int i = 0; i < kTokens * kLanes; i += V::kWidth) V::store(totals + i, V::zero());
  for (int64_t k = k_begin; k < k_end;) {
    const int64_t block_end = (k / kBlockCols + 1) * kBlockCols;
    const int64_t end = block_end < k_end ? block_end : k_end;
    const typename I::template Factors<kTokens> factors(x, k, end);
    Rows rows(static_cast<const char*>(panel), k, end);
    add_tiles<I, kTokens>(rows, factors, scales, k, end, 0, totals);
    k = end;
  }
}

template <typename I, typename Rows, int kTokens>
struct DotTokens {
  static void run(const DotArgs& a) {
    dot_range<I, Rows, kTokens>(a.panel, a.scales, a.k_begin, a.k_end, a.x, a.out);
  }
};

template <typename I, typename Rows, int kTokens>
struct LeavesTokens {
  static void run(const LeavesArgs& a) {
    using V = typename I::Vector;
    for (int64_t leaf = 0; leaf < a.num_leaves; ++leaf) {
      alignas(64) float partial[kTokens * kLanes];
      dot_range<I, Rows, kTokens>(a.panel, a.scales, leaf * a.leaf_cols, (leaf + 1) * a.leaf_cols, a.x, partial);
      for (int t = 0; t < kTokens; ++t) {
        float* sum = a.sums[t] + leaf * kLanes;
        const typename V::Float weight = V::set1(a.weights[t]);
        for (int i = 0; i < kLanes; i += V::kWidth) {
          V::store(sum + i, V::add(V::load(sum + i), V::mul(weight, V::load(partial + t * kLanes + i))));
        }
      }
    }
  }
};

// One instance for every size of token group.
template <template <typename, typename, int> class Kernel, typename I, template <int> class Rows, typename Args>
inline void run_for_tokens(const Args& args) {
  static_assert(kMaxTokens == 12);
  using Function = void (*)(const Args&);
  static constexpr Function kByTokens[] = {
      Kernel<I, Rows<1>, 1>::run,   Kernel<I, Rows<2>, 2>::run,   Kernel<I, Rows<3>, 3>::run,
      Kernel<I, Rows<4>, 4>::run,   Kernel<I, Rows<5>, 5>::run,   Kernel<I, Rows<6>, 6>::run,
      Kernel<I, Rows<7>, 7>::run,   Kernel<I, Rows<8>, 8>::run,   Kernel<I, Rows<9>, 9>::run,
      Kernel<I, Rows<10>, 10>::run, Kernel<I, Rows<11>, 11>::run, Kernel<I, Rows<12>, 12>::run};
  kByTokens[args.num_tokens - 1](args);
}

}  // namespace
}  // namespace hadal::cpu
