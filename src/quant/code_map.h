// Applies a range map (range_map.h) to many codes at memory speed, counts what it rounds, and takes the exact map back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quant/range_map.h"

namespace hadal {

struct CodeMapStats {
  uint64_t num_codes = 0;
  uint64_t num_inexact = 0;       // codes whose value (with the corrected scale) changed
  uint64_t num_nan = 0;           // 0x7F and 0xFF: kept
  double max_relative_error = 0;  // |new - old| / |old| over the codes, scale arithmetic aside
  // Only for requantisation by rows (row_requant.h): sums over the weights.
  double signal = 0, noise = 0;  // old^2, (new - old)^2
  uint64_t num_zero_rows = 0;

  void add(const CodeMapStats& other);
};

// A code that the exact map rounded: position in its chunk << 1, plus 1 when the old magnitude was one above twice the
// new one, plus 0 when one below. Positions ascend.
using LostBits = std::vector<uint32_t>;

// The most codes of one call.
inline constexpr size_t kMaxMapCodes = size_t{1} << 20;

// out[i] = map of codes[i]; they do not overlap. `lost` (may be null; only for kExact) is filled. The map is not kNone.
// Requires equal sizes of at most kMaxMapCodes. Cost: a few vector instructions for 32 codes (AVX2, where the processor
// has it), more where codes of the lowest two binades are frequent.
CodeMapStats map_codes(RangeMap map, std::span<const uint8_t> codes, std::span<uint8_t> out, LostBits* lost);
// The same without AVX2.
CodeMapStats map_codes_baseline(RangeMap map, std::span<const uint8_t> codes, std::span<uint8_t> out, LostBits* lost);

// The inverse of kExact; `out` may be `codes`. False when `codes` or `lost` cannot have come from map_codes(): a code
// above 0x76, or a lost bit beside no code that it fits.
bool unmap_exact_codes(std::span<const uint8_t> codes, const LostBits& lost, std::span<uint8_t> out);

}  // namespace hadal
