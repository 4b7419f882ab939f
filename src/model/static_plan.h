// The numerics plan of a per-channel checkpoint with static input scales (mode C: spec/gaudi-pipeline.md 1.3 and 5.1).
#pragma once

#include "base/status.h"
#include "formats/checkpoint.h"
#include "model/config.h"
#include "quant/numerics_plan.h"

namespace hadal {

// Reads every "X.input_scale". Modules that a device fuses share the largest: gate and up; gate and up of all routed
// experts; down of all routed experts. Requires config.static_input_scales and a checkpoint that was checked.
// Errors: kIo; kCorrupt for a scale that is not positive and finite, naming it.
Expected<NumericsPlan> make_static_plan(NumericsProfile profile, const ModelConfig& config,
                                        const Checkpoint& checkpoint);

}  // namespace hadal
