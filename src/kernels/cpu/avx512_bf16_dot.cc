// Panels times token groups. One load (and decode) of 32 rows x 2 k feeds two vdpbf16ps per token; the sums of up to 12
// tokens stay in registers. Every token adds in the same order, whatever the size of its group.
#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/avx512_bf16.h"
#include "kernels/cpu/avx512_math.h"
#include "tensor/fp8.h"

namespace hadal::cpu::avx512_bf16 {
namespace {

constexpr uint32_t kEvenK = 0x0000FFFFu, kOddK = 0xFFFF0000u;

// 32 rows x 2 k as BF16 pairs: rows of `low` and `high` together, in an order of the loader's choice.
struct WeightPair {
  __m512i low, high;
};

// Upper (or lower) bytes of the BF16 values of codes 0 .. 127.
struct alignas(64) ByteTable {
  uint8_t bytes[128];
};
constexpr ByteTable make_byte_table(int shift) {
  ByteTable table{};
  for (uint32_t code = 0; code < 128; ++code) {
    table.bytes[code] = static_cast<uint8_t>(fp8_detail::make_bf16_table().data()[code].bits >> shift);
  }
  return table;
}
constexpr ByteTable kUpperBytes = make_byte_table(8);
constexpr ByteTable kLowerBytes = make_byte_table(0);

// Exact for all 256 codes: two 128-entry byte lookups, the sign put on top, then both bytes side by side.
struct F8Loader {
  static constexpr bool kScaled = true, kBothHalves = true;
  static constexpr int64_t kPairBytes = 64;
  __m512i upper0, upper1, lower0, lower1, sign;

  F8Loader()
      : upper0(_mm512_load_si512(kUpperBytes.bytes)),
        upper1(_mm512_load_si512(kUpperBytes.bytes + 64)),
        lower0(_mm512_load_si512(kLowerBytes.bytes)),
        lower1(_mm512_load_si512(kLowerBytes.bytes + 64)),
        sign(_mm512_set1_epi8(static_cast<char>(0x80))) {}

  WeightPair load(const char* at) const { return decode(_mm512_loadu_si512(at)); }
  // Inside each 128-bit lane the first eight values lie in low, the others in high.
  WeightPair decode(__m512i codes) const {
    constexpr int kOrAnd = 0xF8;  // a | (b & c)
    const __m512i upper =
        _mm512_ternarylogic_epi32(_mm512_permutex2var_epi8(upper0, codes, upper1), codes, sign, kOrAnd);
    const __m512i lower = _mm512_permutex2var_epi8(lower0, codes, lower1);
    return {_mm512_unpacklo_epi8(lower, upper), _mm512_unpackhi_epi8(lower, upper)};
  }
  static __m512 first_rows(__m512 low, __m512 high) { return first_half(low, high); }
  static __m512 last_rows(__m512 low, __m512 high) { return second_half(low, high); }
};

struct Bf16Loader {
  static constexpr bool kScaled = false, kBothHalves = true;
  static constexpr int64_t kPairBytes = 128;

  WeightPair load(const char* at) const { return {_mm512_loadu_si512(at), _mm512_loadu_si512(at + 64)}; }
  static __m512 first_rows(__m512 low, __m512) { return low; }
  static __m512 last_rows(__m512, __m512 high) { return high; }
};

// Only rows 0 .. 15: the queries of a model with few heads.
struct Bf16HalfLoader : Bf16Loader {
  static constexpr bool kBothHalves = false;

  WeightPair load(const char* at) const { return {_mm512_loadu_si512(at), _mm512_setzero_si512()}; }
};

template <int kTokens>
struct Sums {
  __m512 low[kTokens], high[kTokens];

  void clear() {
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) low[t] = high[t] = _mm512_setzero_ps();
  }
};

// Adds the single column k, the other half of its pair masked out on both sides.
template <typename Loader, int kTokens>
inline void add_column(const Loader& loader, const char* panel, int64_t k, const bf16_t* const* x,
                       Sums<kTokens>& sums) {
  const WeightPair w = loader.load(panel + k / 2 * Loader::kPairBytes);
  const bool odd = k % 2 != 0;
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(odd ? kOddK : kEvenK));
  const __m512i low = _mm512_and_si512(w.low, mask), high = _mm512_and_si512(w.high, mask);
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
    const uint32_t bits = x[t][k].bits;
    const __m512i factor = _mm512_set1_epi32(static_cast<int>(odd ? bits << 16 : bits));
    sums.low[t] = dot_pairs(sums.low[t], low, factor);
    if constexpr (Loader::kBothHalves) sums.high[t] = dot_pairs(sums.high[t], high, factor);
  }
}

// sums += columns [k_begin, k_end), ascending.
template <typename Loader, int kTokens>
inline void add_columns(const Loader& loader, const char* panel, int64_t k_begin, int64_t k_end, const bf16_t* const* x,
                        int64_t prefetch_bytes, Sums<kTokens>& sums) {
  int64_t k = k_begin;
  if (k % 2 != 0 && k < k_end) add_column(loader, panel, k++, x, sums);
  for (; k + 2 <= k_end; k += 2) {
    const char* at = panel + k / 2 * Loader::kPairBytes;
    for (int64_t line = 0; line < Loader::kPairBytes; line += 64) {
      _mm_prefetch(at + prefetch_bytes + line, _MM_HINT_T0);
    }
    const WeightPair w = loader.load(at);
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      int pair;
      __builtin_memcpy(&pair, x[t] + k, sizeof(pair));
      const __m512i factor = _mm512_set1_epi32(pair);
      sums.low[t] = dot_pairs(sums.low[t], w.low, factor);
      if constexpr (Loader::kBothHalves) sums.high[t] = dot_pairs(sums.high[t], w.high, factor);
    }
  }
  if (k < k_end) add_column(loader, panel, k, x, sums);
}

// total = columns [k_begin, k_end), block sums times scale where there are scales.
template <typename Loader, int kTokens>
inline void dot_range(const Loader& loader, const void* panel, const float* scales, int64_t k_begin, int64_t k_end,
                      const bf16_t* const* x, int64_t prefetch_bytes, Sums<kTokens>& total) {
  const auto* bytes = static_cast<const char*>(panel);
  total.clear();
  if constexpr (Loader::kScaled) {
    for (int64_t k = k_begin; k < k_end;) {
      const int64_t block_end = (k / kBlockCols + 1) * kBlockCols;
      const int64_t end = block_end < k_end ? block_end : k_end;
      Sums<kTokens> sums;
      sums.clear();
      add_columns(loader, bytes, k, end, x, prefetch_bytes, sums);
      const __m512 scale = _mm512_set1_ps(scales[k / kBlockCols]);
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        total.low[t] = _mm512_fmadd_ps(sums.low[t], scale, total.low[t]);
        total.high[t] = _mm512_fmadd_ps(sums.high[t], scale, total.high[t]);
      }
      k = end;
    }
  } else {
    add_columns(loader, bytes, k_begin, k_end, x, prefetch_bytes, total);
  }
}

template <typename Loader, int kTokens>
struct DotTokens {
  static void run(const DotArgs& a) {
    const bf16_t* x[kTokens];
    for (int t = 0; t < kTokens; ++t) x[t] = a.x[t];
    Sums<kTokens> total;
    dot_range(Loader(), a.panel, a.scales, a.k_begin, a.k_end, x, a.prefetch_bytes, total);
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {  // unrolled as well: a run-time index would keep the sums in memory
      _mm512_storeu_ps(a.out + t * kLanes, Loader::first_rows(total.low[t], total.high[t]));
      if constexpr (Loader::kBothHalves) {
        _mm512_storeu_ps(a.out + t * kLanes + 16, Loader::last_rows(total.low[t], total.high[t]));
      }
    }
  }
};

inline void add_scaled(float* sum, __m512 factor, __m512 addend) {
  _mm512_storeu_ps(sum, _mm512_fmadd_ps(addend, factor, _mm512_loadu_ps(sum)));
}

// A leaf is added block by block, weight and scale in one factor: all registers belong to the block sums.
template <typename Loader, int kTokens>
struct LeavesTokens {
  static void run(const LeavesArgs& a) {
    const Loader loader;
    const auto* bytes = static_cast<const char*>(a.panel);
    const bf16_t* x[kTokens];
    for (int t = 0; t < kTokens; ++t) x[t] = a.x[t];
    for (int64_t leaf = 0; leaf < a.num_leaves; ++leaf) {
      // The sums lie in L2 or beyond: on their way while the leaf is multiplied.
      for (int t = 0; t < kTokens; ++t) {
        _mm_prefetch(reinterpret_cast<const char*>(a.sums[t] + leaf * kLanes), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(a.sums[t] + leaf * kLanes + 16), _MM_HINT_T0);
      }
      const int64_t leaf_end = a.k_begin + (leaf + 1) * a.leaf_cols;
      for (int64_t k = leaf_end - a.leaf_cols; k < leaf_end;) {
        const int64_t block_end = Loader::kScaled ? (k / kBlockCols + 1) * kBlockCols : leaf_end;
        const int64_t end = block_end < leaf_end ? block_end : leaf_end;
        Sums<kTokens> block;
        block.clear();
        add_columns(loader, bytes, k, end, x, a.prefetch_bytes, block);
        const float scale = Loader::kScaled ? a.scales[k / kBlockCols] : 1.0f;
#pragma GCC unroll 12
        for (int t = 0; t < kTokens; ++t) {
          float* sum = a.sums[t] + leaf * kLanes;
          const __m512 factor = _mm512_set1_ps(scale * a.weights[t]);
          add_scaled(sum, factor, Loader::first_rows(block.low[t], block.high[t]));
          add_scaled(sum + 16, factor, Loader::last_rows(block.low[t], block.high[t]));
        }
        k = end;
      }
    }
  }
};

// One instance for every size of token group.
template <template <typename, int> class Kernel, typename Loader, typename Args>
void run_for_tokens(const Args& args) {
  static_assert(kRegisterTokens == 12);
  using Function = void (*)(const Args&);
  static constexpr Function kByTokens[] = {Kernel<Loader, 1>::run,  Kernel<Loader, 2>::run,  Kernel<Loader, 3>::run,
                                           Kernel<Loader, 4>::run,  Kernel<Loader, 5>::run,  Kernel<Loader, 6>::run,
                                           Kernel<Loader, 7>::run,  Kernel<Loader, 8>::run,  Kernel<Loader, 9>::run,
                                           Kernel<Loader, 10>::run, Kernel<Loader, 11>::run, Kernel<Loader, 12>::run};
  kByTokens[args.num_tokens - 1](args);
}

}  // namespace

void dot_f8(const DotArgs& args) { run_for_tokens<DotTokens, F8Loader>(args); }
void dot_bf16(const DotArgs& args) {
  if (args.num_rows > 16) return run_for_tokens<DotTokens, Bf16Loader>(args);
  run_for_tokens<DotTokens, Bf16HalfLoader>(args);
}
void add_leaves_f8(const LeavesArgs& args) { run_for_tokens<LeavesTokens, F8Loader>(args); }
void add_leaves_bf16(const LeavesArgs& args) { run_for_tokens<LeavesTokens, Bf16Loader>(args); }

void silu_mul(const float* gate, const float* up, int64_t n, bf16_t* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = tail_mask(n, i);
    const __m512 z = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 denominator = _mm512_add_ps(_mm512_set1_ps(1.0f), exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), z)));
    const __m512 h = _mm512_mul_ps(_mm512_div_ps(z, denominator), _mm512_maskz_loadu_ps(mask, up + i));
    _mm256_mask_storeu_epi16(out + i, mask, (__m256i)_mm512_cvtneps_pbh(h));
  }
}

void round_row(const float* in, int64_t n, bf16_t* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = tail_mask(n, i);
    _mm256_mask_storeu_epi16(out + i, mask, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, in + i)));
  }
}

void decode_f8_row(const uint8_t* codes, int64_t n, bf16_t* out) {
  const F8Loader loader;
  // Eights of codes, so dealt out that decoding leaves them in order.
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  for (int64_t i = 0; i < n; i += 64) {
    const __mmask64 mask = n - i >= 64 ? ~uint64_t{0} : (uint64_t{1} << (n - i)) - 1;
    const __m512i dealt = _mm512_permutexvar_epi64(order, _mm512_maskz_loadu_epi8(mask, codes + i));
    const WeightPair values = loader.decode(dealt);
    _mm512_mask_storeu_epi16(out + i, static_cast<__mmask32>(mask), values.low);
    _mm512_mask_storeu_epi16(out + i + 32, static_cast<__mmask32>(mask >> 32), values.high);
  }
}

}  // namespace hadal::cpu::avx512_bf16
