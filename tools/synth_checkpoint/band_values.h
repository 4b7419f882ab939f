// The values of synthetic weights. Each is a function of (seed, tensor name, position), so bands of rows can be made in
// any order on any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "model/weight_plan.h"
#include "tensor/dtype.h"

namespace hadal {

enum class SynthValues {
  kRandom,       // as fast as bytes can be made; magnitudes keep activations finite
  kTinyFormula,  // the closed formula of the golden tiny models; slower, `seed` is not used
};

// FNV-1a, 64 bits.
uint64_t hash_name(std::string_view name);

// Element `i` (row-major) of the formula for a tensor whose name has this hash: uniform in [-1, 1), 2^24 steps.
//   z = hash + (i + 1) * 0x9E3779B97F4A7C15, mixed as in splitmix64;  t = 2 * (z >> 40) / 2^24 - 1
double formula_unit(uint64_t name_hash, uint64_t i);

// What a tensor is filled with.
struct TensorValues {
  uint64_t key = 0;   // hash_name() of the name, with the seed mixed in for kRandom
  double offset = 0;  // value = offset + amplitude * t
  double amplitude = 1;
};
TensorValues values_of(const PlannedTensor& tensor, SynthValues kind, uint64_t seed);

// Rows [row_begin, row_end) of a tensor [rows, cols]; vectors count as one row. row_begin is a multiple of 128.
struct RowBand {
  int64_t row_begin = 0;
  int64_t row_end = 0;
  int64_t cols = 0;
};

struct BandData {
  std::vector<std::byte> elements;
  std::vector<float> scales;  // [row blocks of the band, col blocks]; F8_E4M3 only
};

// `power_of_two_scales`: as DeepSeek-V3.1 stores them (scale_fmt "ue8m0").
void fill_band(const TensorValues& values, SynthValues kind, DType dtype, const RowBand& band, bool power_of_two_scales,
               BandData& out);

}  // namespace hadal
