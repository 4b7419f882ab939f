#include <algorithm>

#include "model/act_quant.h"
#include "model/layers.h"
#include "model/range_observer.h"
#include "tensor/bf16.h"

namespace hadal {
namespace {

GateUpArgs gate_up_of(const StepContext& step, const MlpWeights& mlp, const QuantInput& x, int64_t num_tokens,
                      const ActRows& h, int64_t first_row) {
  return {.gate = &mlp.gate,
          .up = &mlp.up,
          .x = x.base,
          .ldx = x.stride,
          .x_scales = x.scales,
          .num_tokens = num_tokens,
          .h = h.at(first_row),
          .ldh = h.stride,
          .round_to_bf16 = step.numerics.bf16_results};
}

DownSource down_of(const MlpWeights& mlp, int64_t num_tokens, const ActRows& h, int64_t first_row) {
  return {.w = &mlp.down, .h = h.at(first_row), .ldh = h.stride, .num_tokens = num_tokens};
}

void run_dense_input(const StepContext& step, const LayerWeights& layer, int64_t layer_idx) {
  const MlpWeights& mlp = layer.mlp;
  const GateUpArgs gate_up =
      gate_up_of(step, mlp, normed_input(step, layer.quant->gate_up.input, 0), step.num_tokens, step.ws.mlp_h, 0);
  run_gate_ups(step, StepPhase::kDense, {&gate_up, 1});
  if (step.ranges != nullptr) step.ranges->observe_mlp(step, layer, layer_idx);
}

Status run_dense_output(const StepContext& step, const LayerWeights& layer) {
  const MlpWeights& mlp = layer.mlp;
  DownSource source = down_of(mlp, step.num_tokens, step.ws.mlp_h, 0);
  source.h_scales =
      quantise_in_place(step, layer.quant->down.input, step.ws.mlp_h, mlp.down.cols, step.ws.row_scales).scales;
  return run_down(step, StepPhase::kDense, {&source, 1}, step.layout.dense_leaves);
}

void route(const StepContext& step, const LayerWeights& layer, int64_t layer_idx) {
  Workspace& ws = step.ws;
  const RouterConfig& router = step.config.router;
  const LinearArgs logits = {.w = &layer.router,
                             .x = ws.normed.base,
                             .ldx = ws.normed.stride,
                             .num_tokens = step.num_tokens,
                             .y = ws.router_logits,
                             .ldy = router.n_routed_experts,
                             .round_to_bf16 = step.numerics.bf16_results};
  run_linears(step, StepPhase::kRouting, {&logits, 1});
  const int64_t top_k = router.num_experts_per_tok;
  step.runner.for_each(StepPhase::kRouting, step.num_tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      route_token(router, ws.router_logits + row * router.n_routed_experts, layer.router_bias,
                  ws.expert_ids + row * top_k, ws.expert_weights + row * top_k);
      if (!step.numerics.bf16_results) continue;
      for (int64_t i = row * top_k; i < (row + 1) * top_k; ++i) {
        ws.expert_weights[i] = round_to_bf16(ws.expert_weights[i]);
      }
    }
  });
  if (step.observer) {
    step.observer("router.expert_ids", layer_idx, {ws.expert_ids, DType::kI32, {step.num_tokens, top_k}});
    step.observer("router.weights", layer_idx, {ws.expert_weights, DType::kF32, {step.num_tokens, top_k}});
  }
}

// Sorts the step's (token, expert) pairs by expert, tokens ascending inside one.
void group_by_expert(const StepContext& step) {
  Workspace& ws = step.ws;
  const int64_t top_k = step.config.router.num_experts_per_tok;
  const int64_t num_pairs = step.num_tokens * top_k;
  std::vector<int64_t>& offsets = ws.expert_offsets;
  std::fill(offsets.begin(), offsets.end(), 0);
  for (int64_t i = 0; i < num_pairs; ++i) ++offsets[static_cast<size_t>(ws.expert_ids[i])];
  int64_t end = 0;
  for (int64_t& offset : offsets) offset = end += offset;  // ends; filling backwards turns them into beginnings
  for (int64_t i = num_pairs - 1; i >= 0; --i) {
    const int64_t at = --offsets[static_cast<size_t>(ws.expert_ids[i])];
    ws.expert_rows[at] = static_cast<int32_t>(i / top_k);
    ws.grouped_weights[at] = ws.expert_weights[i];
  }
}

// Quantises the rows of expert_h that belong to experts of this rank in place, each by its expert's needs.
void quantise_expert_h(const StepContext& step, const LayerQuant& quant, int64_t width) {
  Workspace& ws = step.ws;
  if (quant.expert_down == InputQuantKind::kNone) return;
  const std::vector<int64_t>& offsets = ws.expert_offsets;
  const IndexRange& experts = step.layout.experts;
  const int64_t first = offsets[static_cast<size_t>(experts.begin)];
  const int64_t count = offsets[static_cast<size_t>(experts.end)] - first;
  step.runner.for_each(StepPhase::kNorms, count, [&](int64_t begin, int64_t end, int) {
    begin += first;
    end += first;
    auto expert = static_cast<size_t>(std::upper_bound(offsets.begin(), offsets.end(), begin) - offsets.begin() - 1);
    for (int64_t row = begin; row < end; ++row) {
      while (offsets[expert + 1] <= row) ++expert;
      InputQuant input = {.kind = quant.expert_down};
      if (input.kind == InputQuantKind::kStatic) input.scale = quant.expert_down_scales[expert];
      quantise_row(step, input, ws.expert_h.at(row), ws.expert_h.at(row), width, ws.expert_scales, row);
    }
  });
}

// Scales of the rows of expert_h that belong to an expert.
ActScales expert_h_scales(const StepContext& step, const LayerQuant& quant, size_t expert, int64_t width,
                          int64_t first_row) {
  const float* scales = step.ws.expert_scales;
  switch (quant.expert_down) {
    case InputQuantKind::kNone:
      break;
    case InputQuantKind::kStatic:
      return {.scales = &quant.expert_down_scales[expert].scale, .ld = 0};
    case InputQuantKind::kToken:
      return {.scales = scales + first_row, .ld = 1};
    case InputQuantKind::kGroup:
      return {.scales = scales + first_row * scales_per_row(width), .ld = scales_per_row(width), .per_block = true};
  }
  return {};
}

void run_experts_input(const StepContext& step, const LayerWeights& layer, int64_t layer_idx) {
  Workspace& ws = step.ws;
  const int64_t width = step.config.moe_intermediate_size;
  const LayerQuant& quant = *layer.quant;
  const QuantInput x = normed_input(step, quant.experts.input, 0);
  ws.gate_ups.clear();
  ws.down_sources.clear();
  const IndexRange& mine = step.layout.experts;
  for (auto expert = static_cast<size_t>(mine.begin); expert < static_cast<size_t>(mine.end); ++expert) {
    const int64_t begin = ws.expert_offsets[expert], count = ws.expert_offsets[expert + 1] - begin;
    if (count == 0) continue;
    const MlpWeights& mlp = layer.experts[expert];
    ws.gate_ups.push_back(gate_up_of(step, mlp, x, count, ws.expert_h, begin));
    ws.gate_ups.back().x_rows = ws.expert_rows + begin;
    ws.down_sources.push_back(down_of(mlp, count, ws.expert_h, begin));
    ws.down_sources.back().y_rows = ws.expert_rows + begin;
    ws.down_sources.back().weights = ws.grouped_weights + begin;
    ws.down_sources.back().leaf = step.layout.leaf_of(static_cast<int64_t>(expert));
    ws.down_sources.back().h_scales = expert_h_scales(step, quant, expert, width, begin);
  }
  const int64_t shared_width = step.layout.shared_width;
  if (shared_width > 0) {
    const InputQuant& shared = quant.gate_up.input;
    const QuantInput shared_x = same_input(shared, quant.experts.input) ? x : normed_input(step, shared, 1);
    ws.gate_ups.push_back(gate_up_of(step, layer.mlp, shared_x, step.num_tokens, ws.mlp_h, 0));
    ws.down_sources.push_back(down_of(layer.mlp, step.num_tokens, ws.mlp_h, 0));
  }
  run_gate_ups(step, StepPhase::kExperts, ws.gate_ups);
  if (step.ranges != nullptr) step.ranges->observe_mlp(step, layer, layer_idx);
}

// As run_experts_input() left the work lists.
Status run_experts_output(const StepContext& step, const LayerWeights& layer) {
  Workspace& ws = step.ws;
  const int64_t width = step.config.moe_intermediate_size;
  const int64_t shared_width = step.layout.shared_width;
  const LayerQuant& quant = *layer.quant;
  quantise_expert_h(step, quant, width);
  if (shared_width > 0) {
    ws.down_sources.back().h_scales =
        quantise_in_place(step, quant.down.input, ws.mlp_h, shared_width, ws.row_scales).scales;
  }
  return run_down(step, StepPhase::kExperts, ws.down_sources, step.layout.moe_leaves);
}

}  // namespace

void run_mlp_input(const StepContext& step, const LayerWeights& layer, int64_t layer_idx) {
  if (!layer.is_moe) return run_dense_input(step, layer, layer_idx);
  route(step, layer, layer_idx);
  group_by_expert(step);
  run_experts_input(step, layer, layer_idx);
}

Status run_mlp_output(const StepContext& step, const LayerWeights& layer) {
  return layer.is_moe ? run_experts_output(step, layer) : run_dense_output(step, layer);
}

Status run_mlp_layer(const StepContext& step, const LayerWeights& layer, int64_t layer_idx) {
  run_mlp_input(step, layer, layer_idx);
  return run_mlp_output(step, layer);
}

}  // namespace hadal
