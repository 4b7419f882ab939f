#include "bench/read_loop.h"

namespace hadal {
namespace {

// Multiply, then add: the baseline has no fused form.
float multiply_add(int64_t num_rounds) {
  typedef float Vector __attribute__((vector_size(16)));
  constexpr int kChains = 12;
  Vector sums[kChains] = {};
  const Vector factor = {0.75F, 0.75F, 0.75F, 0.75F}, term = {0.25F, 0.25F, 0.25F, 0.25F};
  for (int64_t round = 0; round < num_rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = sums[i] * factor + term;
  }
  float result = 0;
  for (int i = 0; i < kChains; ++i) result += sums[i][0];
  return result;
}

constexpr ReadLoop kReads[] = {HADAL_READ_LOOPS("128-bit", Vectors128), {nullptr, nullptr}};
constexpr MultiplyLoop kMultiplies[] = {{MultiplyKind::kFp32, "128-bit mul add", 2.0 * 4 * 12, multiply_add},
                                        {MultiplyKind::kFp32, nullptr, 0, nullptr}};

}  // namespace

const ProbeLoops kBaselineProbes = {kReads, kMultiplies};

}  // namespace hadal
