#include "bench/probes.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>

namespace hadal {
namespace {

float multiply_bf16(int64_t num_rounds) {
  constexpr int kChains = 16;
  __m512 sums[kChains];
  // 2^-10 in every BF16: sums stay finite for any number of rounds a probe can run.
  const __m512bh factor = (__m512bh)_mm512_set1_epi16(0x3A80);
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_setzero_ps();
  for (int64_t round = 0; round < num_rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbf16_ps(sums[i], factor, factor);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

constexpr const ReadLoop* kReads = kNoReads;
constexpr MultiplyLoop kMultiplies[] = {{MultiplyKind::kBf16, "avx512 dpbf16", 2.0 * 32 * 16, multiply_bf16},
                                        {MultiplyKind::kFp32, nullptr, 0, nullptr}};

}  // namespace

const ProbeLoops kAvx512Bf16Probes = {kReads, kMultiplies};

}  // namespace hadal

#else

namespace hadal {
const ProbeLoops kAvx512Bf16Probes = {kNoReads, kNoMultiplies};
}  // namespace hadal

#endif
