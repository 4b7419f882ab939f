// The two halves of a decoder layer. Internal to model/. Both read ws.x (plus the pending ws.delta) and leave their
// output in ws.delta, to be added to ws.x by the next one.
#pragma once

#include "model/step_context.h"
#include "model/weights.h"

namespace hadal {

// Multi-head latent attention; writes the step's rows to the layer's cache `kv` first. layer_idx is for the observer.
void run_attention_layer(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv, int64_t layer_idx);

// Dense MLP or mixture of experts. layer_idx is for the observer.
void run_mlp_layer(const StepContext& step, const LayerWeights& layer, int64_t layer_idx);

}  // namespace hadal
