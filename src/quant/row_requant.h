// From 128x128 block scales to one scale a row: what convert_block_fp8_to_channel_fp8.py of vLLM's Gaudi fork computes.
// All in FP32: w = decode(code) * block scale; row scale s = max |w| / R; new code = cast(w / s), R = 240 or 448.
// Beyond the peer, whose rows of zeros become NaN: a row whose s is 0 gets scale 1 and codes of zero. NaN codes are
// kept and do not count towards the maximum. Facts: spec/gaudi-pipeline.md 1.3.
#pragma once

#include <cstdint>
#include <span>

#include "quant/code_map.h"
#include "quant/scale_rule.h"
#include "tensor/block_scale.h"

namespace hadal {

// Rows [first_row, + codes.size() / cols) of a block-FP8 weight.
struct BlockRows {
  std::span<const uint8_t> codes;  // [rows, cols]
  int64_t first_row = 0;           // in the whole weight
  int64_t cols = 0;                // > 0
  std::span<const float> scales;   // of the whole weight, as BlockScaleLayout says
  BlockScaleLayout layout;
};

// row_scales: F32 [rows]. Requires block scales that are finite, >= 0, and at most FLT_MAX / 448.
void compute_row_scales(const BlockRows& rows, FpRange range, std::span<float> row_scales);

// Fills `out` [rows, cols] with the codes for such row scales. The statistics count codes whose FP32 value
// changed.
CodeMapStats requantise_rows(const BlockRows& rows, FpRange range, std::span<const float> row_scales,
                             std::span<uint8_t> out);

}  // namespace hadal
