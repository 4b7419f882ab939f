// The two halves of a decoder layer, whole and in parts. Internal to model/. Both read ws.x (plus the pending ws.delta)
// and leave their output in ws.delta, to be added to ws.x by the next one. Between the parts of a half the workspace
// must stay as it is.
#pragma once

#include "model/step_context.h"
#include "model/weights.h"

namespace hadal {

// Multi-head latent attention; writes the step's rows to the layer's cache `kv` first. layer_idx is for the observer.
// Errors: run_down()'s.
Status run_attention_layer(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv,
                           int64_t layer_idx);

// Its parts: queries and cache rows; the expanded spans (below) and absorbed rows (absorbed_attention.h); the output
// projection. Errors: run_down()'s.
void run_attention_input(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv);
Status run_attention_output(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv,
                            int64_t layer_idx);

// The expanded form cut into units. A unit is a segment of keys for as many (head, span) pairs as there are workers:
// unit = wave * num_segments + segment. Where the kernels have only the whole, num_segments is 1.
struct ExpandedUnits {
  int64_t num_waves = 0, num_segments = 0;
  int64_t num_units() const { return num_waves * num_segments; }
};
ExpandedUnits expanded_units(const StepContext& step, const LayerWeights& layer);
// Runs units [begin, end); those of a layer go in ascending order.
void attend_expanded_units(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv,
                           const ExpandedUnits& units, int64_t begin, int64_t end);

// Dense MLP or mixture of experts. layer_idx is for the observer. Errors: run_down()'s.
Status run_mlp_layer(const StepContext& step, const LayerWeights& layer, int64_t layer_idx);
// Its parts: up to the activations, and the down projections.
void run_mlp_input(const StepContext& step, const LayerWeights& layer, int64_t layer_idx);
Status run_mlp_output(const StepContext& step, const LayerWeights& layer);

}  // namespace hadal
