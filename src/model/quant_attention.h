// Which attention kernels a layer's numerics plan needs, and their arguments. Internal to model/.
#pragma once

#include "model/step_context.h"
#include "model/weights.h"

namespace hadal {

// Whether prefill (decode) of a layer leaves the plain kernels.
bool quantises_prefill(const LayerQuant& quant);
bool quantises_decode(const LayerQuant& quant);

QuantExpandedArgs quant_expanded_args(const NumericsPlan& numerics, const LayerQuant& quant, const HeadWeights& head,
                                      ExpandedAttentionArgs base);
QuantAbsorbedArgs quant_absorbed_args(const NumericsPlan& numerics, const LayerQuant& quant,
                                      AbsorbedAttentionArgs base);

}  // namespace hadal
