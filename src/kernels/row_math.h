// Passes over one row of logits, for the sampler. They work in blocks: the maximum and the sum of a block let later
// passes skip most of a row. One table per instruction set, as kernels.h, but nothing here knows of a model.
//
// Determinism: a block's results depend on the block alone. Different tables may round differently.
// Numerics: an exponential e^z is exactly 1 at z = 0, exactly 0 below 2^-127, and down to 2^-126 within a relative
// 2^-22 (1 + |z|): the polynomial's error and last rounding (2^-22.4), and four roundings of the argument.
#pragma once

#include <cstdint>

namespace hadal {

enum class Isa;

inline constexpr int64_t kLogitBlock = 256;  // floats: 1 KiB, which stays in the nearest cache between two passes

// row: f32 [n], n >= 1; blocks are its consecutive kLogitBlock elements, the last may be short. Scales are positive and
// finite. No allocation; any thread.
struct RowMath {
  // maxima[b]: the largest of block b, -infinity where all are. Returns whether every value is finite or -infinity;
  // maxima are undefined when not.
  bool (*block_maxima)(const float* row, int64_t n, float* maxima);

  // Also sums[b] = sum over block b of exp((row[i] - maxima[b]) * scale), in [1, kLogitBlock]; 0 where all are
  // -infinity. Reads the row once.
  bool (*block_softmax)(const float* row, int64_t n, float scale, float* maxima, float* sums);

  // out[i] = exp((row[i] - max) * scale). Requires max finite and >= every value; NaN stays NaN. out may be row.
  void (*exp_row)(const float* row, int64_t n, float max, float scale, float* out);
};

const RowMath& row_math_for(Isa isa);  // Requires isa to be available (kernels.h).
const RowMath& fastest_row_math();     // of those available

}  // namespace hadal
