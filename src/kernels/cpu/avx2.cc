// Attention and element-wise primitives on AVX2. Compiled with flags for it: see primitives.h on what may be included.
#include "kernels/cpu/avx2_vector.h"
#include "kernels/cpu/fp32_attention.h"
#include "kernels/cpu/fp32_kernels.h"
#include "tensor/fp8.h"

namespace hadal::cpu::avx2 {
namespace {

constexpr int64_t kInBlock = kBlockCols - 1;

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

struct Instructions {
  using Vector = Avx2;
  using Weights = WideWeights;
  static constexpr int kTileLanes = 4;
};

}  // namespace

void silu_mul(const float* gate, const float* up, int64_t n, bf16_t* out) { silu_mul_in<Avx2>(gate, up, n, out); }
void round_row(const float* in, int64_t n, bf16_t* out) { round_row_in<Avx2>(in, n, out); }

// Exact for all 256 codes. A normal code is its bits moved and the exponent's new bias; the seven subnormal magnitudes
// and zero come from a table of bytes, and NaN is put in by hand.
void decode_f8_row(const uint8_t* codes, int64_t n, bf16_t* out) {
  const auto words = [](int bits) { return _mm256_set1_epi16(static_cast<int16_t>(bits)); };
  // A code into both bytes of its word.
  const __m256i spread = _mm256_setr_epi8(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7,  //
                                          8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
  // Lower bytes of the BF16 values of codes 0 .. 7, then the upper bytes.
  alignas(16) static constexpr uint8_t kSubnormals[16] = {0, 0,    0x80, 0xC0, 0,    0x20, 0x40, 0x60,
                                                          0, 0x3B, 0x3B, 0x3B, 0x3C, 0x3C, 0x3C, 0x3C};
  const __m256i subnormals = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(kSubnormals)));
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m128i loaded = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i));
    const __m256i twice = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(loaded), spread);
    const __m256i magnitude = _mm256_and_si256(twice, words(0x007F));
    const __m256i normal = _mm256_add_epi16(_mm256_slli_epi16(magnitude, 4), words(120 << 7));
    const __m256i places = _mm256_or_si256(_mm256_and_si256(twice, words(0x7F7F)), words(0x0800));
    const __m256i subnormal = _mm256_shuffle_epi8(subnormals, places);
    const __m256i value = _mm256_blendv_epi8(normal, subnormal, _mm256_cmpgt_epi16(words(8), magnitude));
    const __m256i is_nan = _mm256_cmpeq_epi16(magnitude, words(kE4m3NaN));
    const __m256i numbers = _mm256_blendv_epi8(value, words(0x7FC0), is_nan);
    const __m256i sign = _mm256_and_si256(twice, words(0x8000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm256_or_si256(numbers, sign));
  }
  for (; i < n; ++i) out[i] = e4m3_to_bf16(codes[i]);
}

void softmax_segment(const SoftmaxArgs& args) { softmax_segment_in<Avx2>(args); }
void weighted_values(const ValuesArgs& args) { weighted_values_in<Instructions>(args); }

}  // namespace hadal::cpu::avx2
