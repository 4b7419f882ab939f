// The FP32 primitives on AVX2. Compiled with flags for it: see primitives.h on what may be included.
#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/fp32_attention.h"
#include "kernels/cpu/fp32_dot.h"
#include "kernels/cpu/fp32_kernels.h"

namespace hadal::cpu::avx2 {
namespace {

// Activations of a group for one block, widened: a broadcast is then a plain load.
template <int kTokens>
struct WideFactors {
  alignas(64) float x[kTokens][kBlockCols];
  int64_t k_begin;

  WideFactors(const bf16_t* const* from, int64_t begin, int64_t k_end) : k_begin(begin) {
    for (int t = 0; t < kTokens; ++t) {
      int64_t k = begin;
      for (; k + Avx2::kWidth <= k_end; k += Avx2::kWidth)
        Avx2::store(x[t] + (k - begin), Avx2::load_bf16(from[t] + k));
      for (; k < k_end; ++k) x[t][k - begin] = bf16_to_f32(from[t][k]);
    }
  }
  Avx2::Float even(int t, int64_t k) const { return Avx2::set1(x[t][k - k_begin]); }
  Avx2::Float odd(int t, int64_t k) const { return Avx2::set1(x[t][k + 1 - k_begin]); }
  Avx2::Float single(int t, int64_t k) const { return even(t, k); }
};

// FP8 of one block, decoded to FP16 once for all tiles of tokens; otherwise as F8Rows.
struct StagedF8Rows {
  static constexpr bool kScaled = true;
  static constexpr float kUnit = 256.0f;
  static constexpr int64_t kPairBytes = 2 * kLanes;
  alignas(64) uint16_t halves[kBlockCols][kLanes];
  __m256i seen[2];  // of 16 rows x 2 k each
  int64_t k_even;   // k of halves[0]

  StagedF8Rows(const char* panel, int64_t k_begin, int64_t k_end)
      : seen{_mm256_setzero_si256(), _mm256_setzero_si256()}, k_even(k_begin & ~int64_t{1}) {
    int64_t k = k_even;
    if (k < k_begin) decode(panel, k, 0xFF00), k += 2;
    for (; k + 2 <= k_end; k += 2) {
      prefetch_ahead(panel + k / 2 * kPairBytes, kPairBytes);
      decode(panel, k, 0xFFFF);
    }
    if (k < k_end) decode(panel, k, 0x00FF);
  }
  [[gnu::always_inline]] void decode(const char* panel, int64_t k, uint16_t counting) {
    for (int half = 0; half < 2; ++half) {
      const auto* at = reinterpret_cast<const __m256i*>(panel + k / 2 * kPairBytes) + half;
      const __m256i codes = _mm256_loadu_si256(at);
      const auto spread = [&](int factors) {
        return _mm256_and_si256(_mm256_maddubs_epi16(_mm256_set1_epi16(static_cast<int16_t>(factors)), codes),
                                _mm256_set1_epi16(static_cast<int16_t>(0xBF80)));
      };
      auto* to = reinterpret_cast<__m256i*>(halves[k - k_even]) + half;
      _mm256_store_si256(to, spread(0x0080));
      _mm256_store_si256(to + 2, spread(0x8000));
      const __m256i counted = _mm256_and_si256(codes, _mm256_set1_epi16(static_cast<int16_t>(counting)));
      seen[half] = _mm256_max_epu8(seen[half], _mm256_add_epi8(counted, counted));
    }
  }
  void prefetch(int64_t) const {}
  Avx2::Float even(int64_t k, int u) const {
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(halves[k - k_even]) + u));
  }
  Avx2::Float odd(int64_t k, int u) const { return even(k + 1, u); }
  Avx2::Float single(int64_t k, int u) const { return even(k, u); }
  Avx2::Float multiplier(float scale, int u) const {
    const __m256i of_half = seen[u / 2];
    return Avx2::poison(Avx2::set1(scale * kUnit),
                        u % 2 != 0 ? _mm256_extracti128_si256(of_half, 1) : _mm256_castsi256_si128(of_half));
  }
};

// tokens x units sums, as many weights and one factor fit 16 registers.
struct Instructions {
  using Vector = Avx2;
  template <int kTokens>
  using Factors = WideFactors<kTokens>;
  static constexpr int kTileTokens = 6;
  static constexpr int units_for(int tokens) { return tokens <= 2 ? 4 : 2; }
};

template <bool kStaged>
struct F8For {
  using Rows = F8Rows<Avx2, false>;
};
template <>
struct F8For<true> {
  using Rows = StagedF8Rows;
};
template <int kTokens>
using F8 = typename F8For<(kTokens > 2)>::Rows;
template <int>
using Bf16 = Bf16Rows<Avx2>;

}  // namespace

void dot_f8(const DotArgs& args) { run_for_tokens<DotTokens, Instructions, F8>(args); }
void dot_bf16(const DotArgs& args) { run_for_tokens<DotTokens, Instructions, Bf16>(args); }
void add_leaves_f8(const LeavesArgs& args) { run_for_tokens<LeavesTokens, Instructions, F8>(args); }
void add_leaves_bf16(const LeavesArgs& args) { run_for_tokens<LeavesTokens, Instructions, Bf16>(args); }
void silu_mul(const float* gate, const float* up, int64_t n, bf16_t* out) { silu_mul_in<Avx2>(gate, up, n, out); }
void round_row(const float* in, int64_t n, bf16_t* out) { round_row_in<Avx2>(in, n, out); }
void softmax_segment(const SoftmaxArgs& args) { softmax_segment_in<Avx2>(args); }
void weighted_values(const ValuesArgs& args) { weighted_values_in<Avx2>(args); }

}  // namespace hadal::cpu::avx2
