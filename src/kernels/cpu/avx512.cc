// The FP32 primitives on AVX-512. Compiled with flags for it: see primitives.h on what may be included.
#include "kernels/cpu/avx512_vector.h"
#include "kernels/cpu/fp32_attention.h"
#include "kernels/cpu/fp32_dot.h"
#include "kernels/cpu/fp32_kernels.h"
#include "tensor/fp8.h"

namespace hadal::cpu::avx512 {
namespace {

// Activations, read where they lie.
template <int kTokens>
struct PairFactors {
  const bf16_t* x[kTokens];

  PairFactors(const bf16_t* const* from, int64_t, int64_t) {
    for (int t = 0; t < kTokens; ++t) x[t] = from[t];
  }
  Avx512::Float even(int t, int64_t k) const { return Avx512::first_of_pair(x[t] + k); }
  Avx512::Float odd(int t, int64_t k) const { return Avx512::second_of_pair(x[t] + k); }
  Avx512::Float single(int t, int64_t k) const { return Avx512::set1(bf16_to_f32(x[t][k])); }
};

// Softmax weights, read where they lie.
struct PairWeights {
  const bf16_t* pairs;  // of the first lane

  PairWeights(const ValuesArgs& a, int64_t, int64_t) : pairs(a.weights + a.lane_begin * 2) {}
  Avx512::Float even(int64_t t, int lane) const { return Avx512::first_of_pair(pairs + t * kLanes + lane * 2); }
  Avx512::Float odd(int64_t t, int lane) const { return Avx512::second_of_pair(pairs + t * kLanes + lane * 2); }
};

// FP8, decoded as it is used. Few tokens: a multiplication moves both bits of a code at once (see fp32_dot.h). Many
// tokens (kByShift): shifts, since every multiplication takes a slot from the multiply-adds.
template <bool kByShift>
struct F8Rows {
  using Storage = NoStorage;
  static constexpr bool kScaled = true;
  static constexpr int64_t kRows = kLanes;
  static constexpr int64_t kPairBytes = 2 * kLanes, kUnitBytes = 2 * Avx512::kWidth;
  const char* panel;
  __m256i seen[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};  // largest doubled codes

  F8Rows(const char* panel_in, int64_t, int64_t, Storage&) : panel(panel_in) {}
  // 16 rows x 2 k.
  __m256i load(int64_t k, int u) const {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel + (k >> 1) * kPairBytes + u * kUnitBytes));
  }
  void see(__m256i codes, int u) { seen[u] = _mm256_max_epu8(seen[u], _mm256_add_epi8(codes, codes)); }
  static __m256i times(__m256i codes, int factors) {
    return _mm256_maddubs_epi16(_mm256_set1_epi16(static_cast<int16_t>(factors)), codes);
  }
  static Avx512::Float widen(__m256i moved) {
    return _mm512_cvtph_ps(_mm256_and_si256(moved, _mm256_set1_epi16(kF8Bits)));
  }
  static Avx512::Float even_of(__m256i codes) {
    return widen(kByShift ? _mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 1) : times(codes, 0x0080));
  }
  static Avx512::Float odd_of(__m256i codes) {
    return widen(kByShift ? _mm256_srai_epi16(codes, 1) : times(codes, 0x8000));
  }
  Avx512::Float even(int64_t k, int u) {
    const __m256i codes = load(k, u);
    see(codes, u);
    return even_of(codes);
  }
  Avx512::Float odd(int64_t k, int u) const { return odd_of(load(k, u)); }
  Avx512::Float single(int64_t k, int u) {
    const bool is_odd = k % 2 != 0;
    const __m256i codes = load(k, u);
    see(_mm256_and_si256(codes, _mm256_set1_epi16(static_cast<int16_t>(is_odd ? 0xFF00 : 0x00FF))), u);
    return is_odd ? odd_of(codes) : even_of(codes);
  }
  Avx512::Float multiplier(float scale, int u) const {
    const __m256i nan_bytes = _mm256_cmpeq_epi8(seen[u], _mm256_set1_epi8(kTwiceF8NaN));
    return _mm512_mask_blend_ps(_mm256_test_epi16_mask(nan_bytes, nan_bytes), _mm512_set1_ps(scale * kF8Unit),
                                _mm512_set1_ps(__builtin_nanf("")));
  }
};

// 24 sums of 12 tokens and what feeds them fit 32 registers.
struct Instructions {
  using Vector = Avx512;
  template <int kTokens>
  using Factors = PairFactors<kTokens>;
  using Weights = PairWeights;
  static constexpr int kTileLanes = kValueLanes;
  static constexpr int tile_tokens(int left) { return left; }
  static constexpr int units_for(int) { return 2; }
};

template <int kTokens>
using F8 = F8Rows<(kTokens > 2)>;
template <int>
using Bf16 = Bf16Rows<Avx512, kLanes>;
template <int>
using HalfBf16 = Bf16Rows<Avx512, kLanes / 2>;

}  // namespace

void dot_f8(const DotArgs& args) { run_for_tokens<DotTokens, Instructions, F8>(args); }
void dot_bf16(const DotArgs& args) {
  if (args.num_rows > kLanes / 2) return run_for_tokens<DotTokens, Instructions, Bf16>(args);
  run_for_tokens<DotTokens, Instructions, HalfBf16>(args);
}
void add_leaves_f8(const LeavesArgs& args) { run_for_tokens<LeavesTokens, Instructions, F8>(args); }
void add_leaves_bf16(const LeavesArgs& args) { run_for_tokens<LeavesTokens, Instructions, Bf16>(args); }
void silu_mul(const float* gate, const float* up, int64_t n, bf16_t* out) { silu_mul_in<Avx512>(gate, up, n, out); }
void round_row(const float* in, int64_t n, bf16_t* out) { round_row_in<Avx512>(in, n, out); }

// Exact for all 256 codes: a table of 128 words in four registers, and the sign.
void decode_f8_row(const uint8_t* codes, int64_t n, bf16_t* out) {
  const __m512i table[4] = {_mm512_load_si512(kE4m3ToBf16.data()), _mm512_load_si512(kE4m3ToBf16.data() + 32),
                            _mm512_load_si512(kE4m3ToBf16.data() + 64), _mm512_load_si512(kE4m3ToBf16.data() + 96)};
  for (int64_t i = 0; i < n; i += 32) {
    const __mmask32 mask = n - i >= 32 ? ~uint32_t{0} : (uint32_t{1} << (n - i)) - 1;
    const __m512i words = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, codes + i));
    const __m512i small = _mm512_permutex2var_epi16(table[0], words, table[1]);
    const __m512i large = _mm512_permutex2var_epi16(table[2], words, table[3]);
    const __mmask32 is_large = _mm512_test_epi16_mask(words, _mm512_set1_epi16(0x40));
    const __m512i magnitude = _mm512_mask_blend_epi16(is_large, small, large);
    const __m512i sign = _mm512_slli_epi16(words, 8);
    constexpr int kOrAnd = 0xF8;  // a | (b & c)
    const __m512i sign_bit = _mm512_set1_epi16(static_cast<int16_t>(0x8000));
    _mm512_mask_storeu_epi16(out + i, mask, _mm512_ternarylogic_epi32(magnitude, sign, sign_bit, kOrAnd));
  }
}

void softmax_segment(const SoftmaxArgs& args) { softmax_segment_in<Avx512>(args); }
void weighted_values(const ValuesArgs& args) { weighted_values_in<Instructions>(args); }

}  // namespace hadal::cpu::avx512
