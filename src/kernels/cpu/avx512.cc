// The FP32 primitives on AVX-512. Compiled with flags for it: see primitives.h on what may be included.
#include "kernels/cpu/avx512_vector.h"
#include "kernels/cpu/fp32_attention.h"
#include "kernels/cpu/fp32_dot.h"
#include "kernels/cpu/fp32_kernels.h"

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

// 24 sums of 12 tokens and what feeds them fit 32 registers.
struct Instructions {
  using Vector = Avx512;
  template <int kTokens>
  using Factors = PairFactors<kTokens>;
  static constexpr int kTileTokens = 12;
  static constexpr int units_for(int) { return 2; }
};

template <int kTokens>
using F8 = F8Rows<Avx512, (kTokens > 2)>;
template <int>
using Bf16 = Bf16Rows<Avx512>;

}  // namespace

void dot_f8(const DotArgs& args) { run_for_tokens<DotTokens, Instructions, F8>(args); }
void dot_bf16(const DotArgs& args) { run_for_tokens<DotTokens, Instructions, Bf16>(args); }
void add_leaves_f8(const LeavesArgs& args) { run_for_tokens<LeavesTokens, Instructions, F8>(args); }
void add_leaves_bf16(const LeavesArgs& args) { run_for_tokens<LeavesTokens, Instructions, Bf16>(args); }
void silu_mul(const float* gate, const float* up, int64_t n, bf16_t* out) { silu_mul_in<Avx512>(gate, up, n, out); }
void round_row(const float* in, int64_t n, bf16_t* out) { round_row_in<Avx512>(in, n, out); }
void softmax_segment(const SoftmaxArgs& args) { softmax_segment_in<Avx512>(args); }
void weighted_values(const ValuesArgs& args) { weighted_values_in<Avx512>(args); }

}  // namespace hadal::cpu::avx512
