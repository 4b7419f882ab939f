// Panels times token groups on AVX2. Compiled with flags for it: see primitives.h on what may be included.
#include "kernels/cpu/avx2_f8.h"
#include "kernels/cpu/avx2_group.h"
#include "kernels/cpu/fp32_dot.h"
#include "kernels/cpu/fp32_kernels.h"

namespace hadal::cpu::avx2 {
namespace {

constexpr int64_t kInBlock = kBlockCols - 1;  // k & kInBlock: k's place in its block

// Activations of a group for one block, widened: a broadcast is then a plain load.
template <int kTokens>
struct WideFactors {
  static constexpr int64_t kStep = 4 * Avx2::kWidth;
  alignas(64) float x[kTokens][kBlockCols];  // [t][k mod kBlockCols]

  WideFactors(const bf16_t* const* from, int64_t k_begin, int64_t k_end) {
    for (int t = 0; t < kTokens; ++t) {
      const bf16_t* at = from[t] + k_begin;
      float* to = x[t] + (k_begin & kInBlock);
      int64_t left = k_end - k_begin;
      for (; left >= kStep; left -= kStep, at += kStep, to += kStep) {
#pragma GCC unroll 4
        for (int i = 0; i < kStep; i += Avx2::kWidth) Avx2::store(to + i, Avx2::load_bf16(at + i));
      }
      for (; left > 0; --left) *to++ = bf16_to_f32(*at++);
    }
  }
  Avx2::Float even(int t, int64_t k) const { return Avx2::set1(x[t][k & kInBlock]); }
  Avx2::Float odd(int t, int64_t k) const { return Avx2::set1(x[t][(k & kInBlock) + 1]); }
  Avx2::Float single(int t, int64_t k) const { return even(t, k); }
};

// FP8 of one block, decoded to FP16 (see fp32_dot.h) once for all tiles of tokens: what is left beside the
// multiply-adds is a conversion from memory.
struct StagedF8Rows {
  static constexpr bool kScaled = true;
  static constexpr int64_t kRows = kLanes;
  static constexpr int64_t kPairBytes = 2 * kLanes;
  struct Storage {
    alignas(64) uint16_t halves[kBlockCols * kLanes];
  };
  const char* panel;
  const uint16_t* halves;  // [k mod kBlockCols][32]
  F8Seen seen;

  [[gnu::noinline]] StagedF8Rows(const char* panel_in, int64_t k_begin, int64_t k_end, Storage& storage)
      : panel(panel_in), halves(storage.halves) {
    F8Seen seen_here;  // a member would live in memory
    const char* at = panel + k_begin / 2 * kPairBytes;
    auto* to = reinterpret_cast<__m256i*>(storage.halves + (k_begin & kInBlock & ~int64_t{1}) * kLanes);
    const auto decode = [&](uint32_t counted) __attribute__((always_inline)) {
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at) + half);
        _mm256_store_si256(to + half, F8Halves::even(codes));
        _mm256_store_si256(to + 2 + half, F8Halves::odd(codes));
        seen_here.see(half, codes, counted);
      }
      at += kPairBytes;
      to += 4;
    };
    for_each_pair(k_begin, k_end, decode);
    seen = seen_here;
  }
  Avx2::Float even(int64_t k, int u) const {
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(halves + (k & kInBlock) * kLanes) + u));
  }
  Avx2::Float odd(int64_t k, int u) const { return even(k + 1, u); }
  Avx2::Float single(int64_t k, int u) const { return even(k, u); }
  Avx2::Float multiplier(float scale, int u) const { return seen.multiplier(scale, u); }
};

// tokens x units sums, as many weights and one factor fit 16 registers.
struct Instructions {
  using Vector = Avx2;
  template <int kTokens>
  using Factors = WideFactors<kTokens>;
  // The next tile's tokens when `left` are. Six keep both multiply-add units busy; four have too few sums for that.
  static constexpr int tile_tokens(int left) { return left == 10 ? 5 : left < 6 ? left : 6; }
  static constexpr int units_for(int tokens) { return tokens <= 2 ? 4 : 2; }
};

template <int>
using F8 = StagedF8Rows;
template <int>
using Bf16 = Bf16Rows<Avx2, kLanes>;
template <int>
using HalfBf16 = Bf16Rows<Avx2, kLanes / 2>;

// Up to here a block is staged as FP16 and shared by few tiles; larger groups repay staging it as FP32.
constexpr int64_t kFewTokens = 12;

}  // namespace

void dot_f8(const DotArgs& args) {
  if (args.num_tokens > kFewTokens) return dot_group<F8Format>(args);
  run_for_tokens<DotTokens, Instructions, F8>(args);
}
void dot_bf16(const DotArgs& args) {
  if (args.num_rows > kLanes / 2) {
    if (args.num_tokens > kFewTokens) return dot_group<Bf16Format>(args);
    return run_for_tokens<DotTokens, Instructions, Bf16>(args);
  }
  for (int64_t first = 0; first < args.num_tokens; first += kRegisterTokens) {
    DotArgs part = args;
    part.x += first;
    part.out += first * kLanes;
    part.num_tokens = args.num_tokens - first < kRegisterTokens ? args.num_tokens - first : kRegisterTokens;
    run_for_tokens<DotTokens, Instructions, HalfBf16>(part);
  }
}
void add_leaves_f8(const LeavesArgs& args) {
  if (args.num_tokens > kFewTokens) return add_leaves_group<F8Format>(args);
  run_for_tokens<LeavesTokens, Instructions, F8>(args);
}
void add_leaves_bf16(const LeavesArgs& args) {
  if (args.num_tokens > kFewTokens) return add_leaves_group<Bf16Format>(args);
  run_for_tokens<LeavesTokens, Instructions, Bf16>(args);
}

}  // namespace hadal::cpu::avx2
