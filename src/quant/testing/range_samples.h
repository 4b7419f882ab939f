// A small model and recognisable ranges for the tests of this folder.
#pragma once

#include "quant/range_set.h"

namespace hadal {

// Layer 0 dense (4 leaves), layers 1 and 2 with 8 experts and a shared one (2 leaves), 4 heads.
RangeDims small_dims();

// DeepSeek-V3, R1, R1-0528 and V3.1.
RangeDims r1_dims();

// Every value measured, and different from its neighbours: a BF16 value. moe_out for world size 2. Satisfies what
// INC's files satisfy (spec/gaudi-pipeline.md 3.5): the cache row is at least the latent, o_in at least sdpa_out.
RangeSet numbered_ranges(const RangeDims& dims);

}  // namespace hadal
