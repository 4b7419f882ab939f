// Tells from its codes whether a block-FP8 checkpoint is as published, or has had a range map (range_map.h) applied.
// A quantiser scales each block so that its largest magnitude becomes 448 (0x7E), or, with scales that are powers of
// two, something in (224, 448]: so a published folder shows codes above 0x77 at once. The maps move 0x7E to 0x77 (seed)
// or 0x76 (exact), and leave nothing above. Used by `convert` (a folder must not be converted twice) and by `serve`.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "quant/range_map.h"
#include "tensor/block_scale.h"

namespace hadal {

// Sums over samples. A plain value; add() costs a fraction of a nanosecond a code.
struct RangeEvidence {
  // blocks[m]: how many blocks have m as their largest magnitude (code & 0x7F), NaN aside. m = 0: blocks of zeros.
  std::array<uint64_t, 128> blocks{};
  uint64_t num_nan = 0;

  // Codes [rows, cols] row-major, beginning at a block's first row and column; the last blocks may be ragged.
  void add(std::span<const uint8_t> codes, int64_t rows, int64_t cols, const BlockScaleLayout& layout = {});
  void add(const RangeEvidence& other);

  uint64_t num_blocks() const;    // those of zeros left out
  uint8_t max_magnitude() const;  // 0x00 to 0x7E
  std::string describe() const;   // "1792 blocks, largest code 0x77, in 99.8 % of them"
};

// kNone: as published, a code above 0x77 occurs. kSeed or kExact: no code above 0x77 or 0x76, and at least half of the
// blocks reach exactly it; or, for scales that are powers of two, among at least 256 blocks some reach it and 99 % lie
// in the eight codes below it. Nothing when the samples decide neither (made-up weights, too few blocks). A few hundred
// blocks from different tensors are enough. What was quantised for 240 by another program looks like kSeed.
std::optional<RangeMap> detect_range_map(const RangeEvidence& evidence);

}  // namespace hadal
