// The FP32 primitives on AVX2. Compiled with flags for it: see primitives.h on what may be included.
#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/fp32_attention.h"
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
  __m256i seen[2];         // largest doubled codes of 16 rows x 2 k each

  [[gnu::noinline]] StagedF8Rows(const char* panel_in, int64_t k_begin, int64_t k_end, Storage& storage)
      : panel(panel_in), halves(storage.halves) {
    int64_t k = k_begin & ~int64_t{1};
    const char* at = panel + k / 2 * kPairBytes;
    uint16_t* to = storage.halves + (k & kInBlock) * kLanes;
    __m256i seen0 = _mm256_setzero_si256(), seen1 = seen0;  // locals: members would live in memory
    const auto decode = [&](uint32_t counted) __attribute__((always_inline)) {
      seen0 = _mm256_max_epu8(seen0, decode_half(at, to, counted));
      seen1 = _mm256_max_epu8(seen1, decode_half(at + kPairBytes / 2, to + kLanes / 2, counted));
      at += kPairBytes;
      to += 2 * kLanes;
    };
    if (k < k_begin) {
      decode(0xFF00FF00);
      k += 2;
    }
    for (; k + 2 <= k_end; k += 2) decode(0xFFFFFFFF);
    if (k < k_end) decode(0x00FF00FF);
    seen[0] = seen0;
    seen[1] = seen1;
  }
  // 16 rows of a pair: one multiplication moves all bits of a code. Returns the doubled codes that `counted` selects.
  [[gnu::always_inline]] static __m256i decode_half(const char* at, uint16_t* to, uint32_t counted) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    const __m256i bits = _mm256_set1_epi16(kF8Bits);
    const __m256i even = _mm256_maddubs_epi16(_mm256_set1_epi16(0x0080), codes);
    const __m256i odd = _mm256_maddubs_epi16(_mm256_set1_epi16(static_cast<int16_t>(0x8000)), codes);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm256_and_si256(even, bits));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to + kLanes), _mm256_and_si256(odd, bits));
    const __m256i chosen =
        counted == 0xFFFFFFFF ? codes : _mm256_and_si256(codes, _mm256_set1_epi32(static_cast<int>(counted)));
    return _mm256_add_epi8(chosen, chosen);
  }
  Avx2::Float even(int64_t k, int u) const {
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(halves + (k & kInBlock) * kLanes) + u));
  }
  Avx2::Float odd(int64_t k, int u) const { return even(k + 1, u); }
  Avx2::Float single(int64_t k, int u) const { return even(k, u); }
  Avx2::Float multiplier(float scale, int u) const {
    const __m256i of_half = seen[u / 2];
    const __m128i codes = u % 2 != 0 ? _mm256_extracti128_si256(of_half, 1) : _mm256_castsi256_si128(of_half);
    const __m128i nan_bytes = _mm_cmpeq_epi8(codes, _mm_set1_epi8(kTwiceF8NaN));
    const __m256i clean = _mm256_cvtepi16_epi32(_mm_cmpeq_epi16(nan_bytes, _mm_setzero_si128()));
    const __m256i nans = _mm256_xor_si256(clean, _mm256_set1_epi32(-1));  // all bits set is a NaN
    return _mm256_or_ps(Avx2::set1(scale * kF8Unit), _mm256_castsi256_ps(nans));
  }
};

// Softmax weights of kBlockCols keys for kValueLanes lanes, widened.
struct WideWeights {
  alignas(64) float weights[kBlockCols][kValueLanes];

  // From key `first` on, which is even.
  WideWeights(const ValuesArgs& a, int64_t first, int64_t num_keys) {
    static_assert(kValueLanes == Avx2::kWidth);
    for (int64_t t = 0; t < num_keys; t += 2) {
      const bf16_t* pairs = a.weights + ((first + t) / 2 * kLanes + a.lane_begin) * 2;
      Avx2::store(weights[t], Avx2::bf16_even(pairs));
      Avx2::store(weights[t + 1], Avx2::bf16_odd(pairs));
    }
  }
  Avx2::Float even(int64_t t, int lane) const { return Avx2::set1(weights[t & kInBlock][lane]); }
  Avx2::Float odd(int64_t t, int lane) const { return Avx2::set1(weights[(t & kInBlock) + 1][lane]); }
};

// tokens x units sums, as many weights and one factor fit 16 registers.
struct Instructions {
  using Vector = Avx2;
  template <int kTokens>
  using Factors = WideFactors<kTokens>;
  using Weights = WideWeights;
  static constexpr int kTileLanes = 4;
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

}  // namespace

void dot_f8(const DotArgs& args) { run_for_tokens<DotTokens, Instructions, F8>(args); }
void dot_bf16(const DotArgs& args) {
  if (args.num_rows > kLanes / 2) return run_for_tokens<DotTokens, Instructions, Bf16>(args);
  run_for_tokens<DotTokens, Instructions, HalfBf16>(args);
}
void add_leaves_f8(const LeavesArgs& args) { run_for_tokens<LeavesTokens, Instructions, F8>(args); }
void add_leaves_bf16(const LeavesArgs& args) { run_for_tokens<LeavesTokens, Instructions, Bf16>(args); }
void silu_mul(const float* gate, const float* up, int64_t n, bf16_t* out) { silu_mul_in<Avx2>(gate, up, n, out); }
void round_row(const float* in, int64_t n, bf16_t* out) { round_row_in<Avx2>(in, n, out); }
void softmax_segment(const SoftmaxArgs& args) { softmax_segment_in<Avx2>(args); }
void weighted_values(const ValuesArgs& args) { weighted_values_in<Instructions>(args); }

}  // namespace hadal::cpu::avx2
