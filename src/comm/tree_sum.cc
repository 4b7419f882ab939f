#include "comm/tree_sum.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "tensor/bf16.h"

namespace hadal {
namespace {

constexpr int64_t kTile = 512;  // elements summed at a time: the tree's partial sums stay in the first-level cache

void load(const void* input, int64_t begin, int64_t count, float* out) {
  const bf16_t* values = static_cast<const bf16_t*>(input) + begin;
  for (int64_t i = 0; i < count; ++i) out[i] = bf16_to_f32(values[i]);
}

// `out` may be a or b, but does not overlap them otherwise.
void add(const float* a, const float* b, int64_t count, float* out) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) out[i] = a[i] + b[i];
}

// Where the sum of a tile of inputs lies: in out [count], which may be an input's own place, or an input itself if it
// is the only one. `scratch` has two tiles for each level.
const float* join(std::span<const void* const> inputs, int64_t begin, int64_t count, DType dtype, float* out,
                  float* scratch) {
  if (inputs.size() == 1) {
    if (dtype == DType::kF32) return static_cast<const float*>(inputs[0]) + begin;
    load(inputs[0], begin, count, out);
    return out;
  }
  const size_t half = std::bit_ceil(inputs.size()) / 2;
  const float* lower = join(inputs.first(half), begin, count, dtype, scratch, scratch + 2 * kTile);
  const float* upper = join(inputs.subspan(half), begin, count, dtype, scratch + kTile, scratch + 2 * kTile);
  add(lower, upper, count, out);
  return out;
}

}  // namespace

void tree_sum(std::span<const void* const> inputs, int64_t begin, int64_t count, DType dtype, void* out) {
  constexpr size_t kMaxLevels = 16;
  HADAL_CHECK(dtype == DType::kF32 || dtype == DType::kBF16, "tree_sum of {}", dtype_name(dtype));
  HADAL_CHECK(!inputs.empty() && inputs.size() < (size_t{1} << kMaxLevels), "tree_sum of {} inputs", inputs.size());
  alignas(64) float sum[kTile];
  alignas(64) float scratch[2 * kMaxLevels * kTile];
  for (int64_t at = 0; at < count; at += kTile) {
    const int64_t length = std::min(kTile, count - at);
    if (dtype == DType::kF32) {
      float* place = static_cast<float*>(out) + at;
      const float* total = join(inputs, begin + at, length, dtype, place, scratch);
      if (total != place) std::copy_n(total, length, place);
      continue;
    }
    const float* total = join(inputs, begin + at, length, dtype, sum, scratch);
    bf16_t* values = static_cast<bf16_t*>(out) + at;
    for (int64_t i = 0; i < length; ++i) values[i] = f32_to_bf16(total[i]);
  }
}

}  // namespace hadal
