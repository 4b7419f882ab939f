// The absorbed form over the step's tokens that use it. Internal to model/.
#pragma once

#include "model/step_context.h"
#include "model/weights.h"

namespace hadal {

// Reads ws.q_rotated and the cache, writes ws.attention_out behind the rows of the expanded spans, for the entries
// [begin, end) of plan.absorbed_rows. layer_idx is for step.ranges.
void attend_absorbed(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv, int64_t layer_idx,
                     int64_t begin, int64_t end);

}  // namespace hadal
