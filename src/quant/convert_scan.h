// Looks at values before anything is written: every scale, and samples of the codes.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "base/thread_pool.h"
#include "formats/checkpoint.h"
#include "quant/convert_plan.h"
#include "quant/range_detect.h"

namespace hadal {

struct ScaleScan {
  uint64_t num_scales = 0;
  uint64_t num_zero = 0;  // harmless: their blocks stand for zeros, before and after
};

// Reads all block scales that the plan converts. A scale that is NaN, infinite, negative, or too large for the result
// to stay finite is kCorrupt, naming tensor and position: no quantiser writes such a scale, and what its block means is
// unknown. Cost: reads 1/4096 of the checkpoint.
Expected<ScaleScan> scan_scales(const Checkpoint& checkpoint, const ConvertPlan& plan, ThreadPool& pool);

// Up to 64 weights spread over the checkpoint, of each the first 128 rows (at most 8 MiB): about 3000 blocks of
// DeepSeek-R1.
Expected<RangeEvidence> sample_codes(const Checkpoint& checkpoint, const ConvertPlan& plan, ThreadPool& pool);

}  // namespace hadal
