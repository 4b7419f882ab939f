#include "comm/tree_sum.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "tensor/bf16.h"

namespace hadal {
namespace {

constexpr int64_t kTile = 512;  // elements summed at a time: the tree's partial sums stay in the first-level cache

void load(const void* input, int64_t begin, int64_t count, DType dtype, float* out) {
  if (dtype == DType::kF32) {
    std::copy_n(static_cast<const float*>(input) + begin, count, out);
    return;
  }
  const bf16_t* values = static_cast<const bf16_t*>(input) + begin;
  for (int64_t i = 0; i < count; ++i) out[i] = bf16_to_f32(values[i]);
}

// Sums inputs into out [kTile]; `scratch` has a tile for each level below.
void join(std::span<const void* const> inputs, int64_t begin, int64_t count, DType dtype, float* out, float* scratch) {
  if (inputs.size() == 1) return load(inputs[0], begin, count, dtype, out);
  const size_t half = std::bit_ceil(inputs.size()) / 2;
  join(inputs.first(half), begin, count, dtype, out, scratch + kTile);
  join(inputs.subspan(half), begin, count, dtype, scratch, scratch + kTile);
  for (int64_t i = 0; i < count; ++i) out[i] += scratch[i];
}

}  // namespace

void tree_sum(std::span<const void* const> inputs, int64_t begin, int64_t count, DType dtype, void* out) {
  constexpr size_t kMaxLevels = 16;
  HADAL_CHECK(dtype == DType::kF32 || dtype == DType::kBF16, "tree_sum of {}", dtype_name(dtype));
  HADAL_CHECK(!inputs.empty() && inputs.size() < (size_t{1} << kMaxLevels), "tree_sum of {} inputs", inputs.size());
  alignas(64) float sum[kTile];
  alignas(64) float scratch[(kMaxLevels + 1) * kTile];
  for (int64_t at = 0; at < count; at += kTile) {
    const int64_t length = std::min(kTile, count - at);
    join(inputs, begin + at, length, dtype, sum, scratch);
    if (dtype == DType::kF32) {
      std::copy_n(sum, length, static_cast<float*>(out) + at);
    } else {
      bf16_t* values = static_cast<bf16_t*>(out) + at;
      for (int64_t i = 0; i < length; ++i) values[i] = f32_to_bf16(sum[i]);
    }
  }
}

}  // namespace hadal
