// Panels times token groups in FP32, for any instruction set I (avx2.cc, avx512.cc): its vectors, how it reads
// activations and weights, and how many sums it keeps in registers. Every sum runs over k ascending, one multiply-add
// per k and one per scale block, whatever the size of the group.
//
// Internal linkage throughout: see primitives.h.
#pragma once

#include "kernels/cpu/primitives.h"

namespace hadal::cpu {
namespace {

constexpr int64_t kLineBytes = 64;

// Weights of one block of a panel: V::kWidth rows ("unit" u: rows u * V::kWidth on) for one k. even and odd take the
// pair's first k and return the weights for it or for its second; single returns those of k itself, which may be
// without its partner: then nothing of the partner may be noticed. multiplier is what the block's sums are multiplied
// by, given its scale. Storage is room that the object points into.
//
// FP8: each code becomes an FP16 by moving its bits (seven bits of magnitude land on exponent and mantissa, subnormals
// included), and FP32 by conversion. That is exact and leaves a factor of 2^8 to the multiplier, except that NaN codes
// become numbers: so rows that met one inside the block get a NaN multiplier.

constexpr float kF8Unit = 256.0f;
// Where the FP16's sign and magnitude are; moving a code may leave a copy of the sign between them.
constexpr int16_t kF8Bits = static_cast<int16_t>(0xBF80);
// Twice a NaN code, as a byte. Doubling drops the sign and keeps the order of magnitudes: a maximum over doubled codes
// shows whether there was one.
constexpr char kTwiceF8NaN = static_cast<char>(0xFE);

struct NoStorage {};

// kRows: of the panel's 32, how many from the first on are wanted.
template <typename V, int64_t kRowsWanted>
struct Bf16Rows {
  using Storage = NoStorage;
  static constexpr bool kScaled = false;
  static constexpr int64_t kRows = kRowsWanted;
  static constexpr int64_t kPairBytes = 4 * kLanes, kUnitBytes = 4 * V::kWidth;
  const char* panel;

  Bf16Rows(const char* panel_in, int64_t, int64_t, Storage&) : panel(panel_in) {}
  const char* at(int64_t k, int u) const { return panel + (k >> 1) * kPairBytes + u * kUnitBytes; }
  typename V::Float even(int64_t k, int u) const { return V::bf16_even(at(k, u)); }
  typename V::Float odd(int64_t k, int u) const { return V::bf16_odd(at(k, u)); }
  typename V::Float single(int64_t k, int u) const { return k % 2 != 0 ? odd(k, u) : even(k, u); }
};

// totals[t][row] += columns [k_begin, k_end), within one block, for tokens kFirst .. kFirst + kTokens - 1 and kUnits
// units of rows from unit0 on. Not inlined: constants of the code around it would take registers from the sums.
//
// Lines ahead are fetched evenly over the kPasses calls for this block, of which this is number `pass`: more at a time
// than a core has line fill buffers would stall it.
template <typename V, int kFirst, int kTokens, int kUnits, int kPasses, typename Rows, typename Factors>
[[gnu::noinline]] void add_tile(Rows rows, const Factors& factors, const float* scales, int64_t k_begin, int64_t k_end,
                                int unit0, int pass, int64_t prefetch_bytes, float* totals) {
  typename V::Float sums[kTokens][kUnits];
  float* out = totals + kFirst * kLanes + unit0 * V::kWidth;
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnits; ++u) {
      sums[t][u] = Rows::kScaled ? V::zero() : V::load(out + t * kLanes + u * V::kWidth);
    }
  }
  // Whichever are fewer, weights or factors, wait in registers for the others to come by.
  const auto add = [&](const auto& weights_of, const auto& factor_of) __attribute__((always_inline)) {
    if constexpr (kTokens < kUnits) {
      typename V::Float factors_here[kTokens];
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) factors_here[t] = factor_of(kFirst + t);
#pragma GCC unroll 4
      for (int u = 0; u < kUnits; ++u) {
        const typename V::Float w = weights_of(unit0 + u);
#pragma GCC unroll 12
        for (int t = 0; t < kTokens; ++t) sums[t][u] = V::accumulate(sums[t][u], w, factors_here[t]);
      }
    } else {
      typename V::Float w[kUnits];
#pragma GCC unroll 4
      for (int u = 0; u < kUnits; ++u) w[u] = weights_of(unit0 + u);
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        const typename V::Float factor = factor_of(kFirst + t);
#pragma GCC unroll 4
        for (int u = 0; u < kUnits; ++u) sums[t][u] = V::accumulate(sums[t][u], w[u], factor);
      }
    }
  };
  const auto add_single = [&](int64_t k) __attribute__((always_inline)) {
    add(
        [&](int u) __attribute__((always_inline)) { return rows.single(k, u); },
        [&](int t) __attribute__((always_inline)) { return factors.single(t, k); });
  };
  int64_t k = k_begin;
  // Several passes: what they need again is at hand, so only the next block is worth fetching.
  constexpr int64_t kBlockBytes = kBlockCols / 2 * Rows::kPairBytes;
  const int64_t ahead = kPasses > 1 && prefetch_bytes < kBlockBytes ? kBlockBytes : prefetch_bytes;
  const int64_t fetch_from = k_begin + (k_end - k_begin) / kPasses * pass;
  if (k % 2 != 0) add_single(k++);
  for (; k + 2 <= k_end; k += 2) {
    const char* next = rows.panel + ((fetch_from + (k - k_begin) / kPasses) >> 1) * Rows::kPairBytes;
    for (int64_t line = 0; line < Rows::kPairBytes; line += kLineBytes) {
      __builtin_prefetch(next + ahead + line);
    }
    add(
        [&](int u) __attribute__((always_inline)) { return rows.even(k, u); },
        [&](int t) __attribute__((always_inline)) { return factors.even(t, k); });
    add(
        [&](int u) __attribute__((always_inline)) { return rows.odd(k, u); },
        [&](int t) __attribute__((always_inline)) { return factors.odd(t, k); });
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

// Units of rows in one pass: what registers hold, if the rows wanted are as many.
template <typename I, typename Rows>
constexpr int units_per_pass(int tile_tokens) {
  constexpr int kWanted = Rows::kRows / I::Vector::kWidth;
  return kWanted < I::units_for(tile_tokens) ? kWanted : I::units_for(tile_tokens);
}

template <typename I, typename Rows>
constexpr int passes_for(int tokens) {
  int passes = 0;
  while (tokens > 0) {
    const int tile_tokens = I::tile_tokens(tokens);
    passes += Rows::kRows / I::Vector::kWidth / units_per_pass<I, Rows>(tile_tokens);
    tokens -= tile_tokens;
  }
  return passes;
}

// The rows wanted for kLeft tokens from kFirst on.
template <typename I, int kFirst, int kLeft, int kPasses, typename Rows, typename Factors>
[[gnu::always_inline]] inline void add_tiles(const Rows& rows, const Factors& factors, const float* scales,
                                             int64_t k_begin, int64_t k_end, int pass, int64_t prefetch_bytes,
                                             float* totals) {
  if constexpr (kLeft > 0) {
    using V = typename I::Vector;
    constexpr int kTokens = I::tile_tokens(kLeft), kUnits = units_per_pass<I, Rows>(kTokens);
    for (int unit = 0; unit < Rows::kRows / V::kWidth; unit += kUnits) {
      add_tile<V, kFirst, kTokens, kUnits, kPasses>(rows, factors, scales, k_begin, k_end, unit, pass++, prefetch_bytes,
                                                    totals);
    }
    add_tiles<I, kFirst + kTokens, kLeft - kTokens, kPasses>(rows, factors, scales, k_begin, k_end, pass,
                                                             prefetch_bytes, totals);
  }
}

// totals[t][0..31] = columns [k_begin, k_end).
template <typename I, typename Rows, int kTokens>
inline void dot_range(const void* panel, const float* scales, int64_t k_begin, int64_t k_end, const bf16_t* const* x,
                      int64_t prefetch_bytes, float* totals) {
  using V = typename I::Vector;
  for (int i = 0; i < kTokens * kLanes; i += V::kWidth) V::store(totals + i, V::zero());
  for (int64_t k = k_begin; k < k_end;) {
    const int64_t block_end = (k / kBlockCols + 1) * kBlockCols;
    const int64_t end = block_end < k_end ? block_end : k_end;
    const typename I::template Factors<kTokens> factors(x, k, end);
    typename Rows::Storage storage;
    const Rows rows(static_cast<const char*>(panel), k, end, storage);
    add_tiles<I, 0, kTokens, passes_for<I, Rows>(kTokens)>(rows, factors, scales, k, end, 0, prefetch_bytes, totals);
    k = end;
  }
}

template <typename I, typename Rows, int kTokens>
struct DotTokens {
  static void run(const DotArgs& a) {
    dot_range<I, Rows, kTokens>(a.panel, a.scales, a.k_begin, a.k_end, a.x, a.prefetch_bytes, a.out);
  }
};

template <typename I, typename Rows, int kTokens>
struct LeavesTokens {
  static void run(const LeavesArgs& a) {
    using V = typename I::Vector;
    for (int64_t leaf = 0; leaf < a.num_leaves; ++leaf) {
      alignas(64) float partial[kTokens * kLanes];
      const int64_t k_begin = a.k_begin + leaf * a.leaf_cols;
      dot_range<I, Rows, kTokens>(a.panel, a.scales, k_begin, k_begin + a.leaf_cols, a.x, a.prefetch_bytes, partial);
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
  static_assert(kRegisterTokens == 12);
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
