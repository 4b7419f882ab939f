// The absorbed form over the step's tokens that use it. Internal to model/.
#pragma once

#include "model/step_context.h"
#include "model/weights.h"

namespace hadal {

// Reads ws.q_rotated and the cache, writes ws.attention_out behind the rows of the expanded spans. layer_idx is for
// step.ranges.
void attend_absorbed(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv, int64_t layer_idx);

}  // namespace hadal
