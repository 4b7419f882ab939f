#include "model/act_quant.h"

#include <cstring>

namespace hadal {

void quantise_row(const StepContext& step, const InputQuant& quant, const std::byte* from, std::byte* to, int64_t width,
                  float* scales, int64_t row) {
  QuantiseArgs args = {.max_finite = full_scale(step.numerics.range), .x = from, .n = width, .out = to};
  switch (quant.kind) {
    case InputQuantKind::kNone:
      return;
    case InputQuantKind::kStatic:
      args.inv = quant.scale.inv;
      break;
    case InputQuantKind::kToken:
      args.kind = QuantiseKind::kToken;
      args.scales = scales + row;
      break;
    case InputQuantKind::kGroup:
      args.kind = QuantiseKind::kGroup;
      args.pow2 = step.numerics.group_scale_pow2;
      args.scales = scales + row * scales_per_row(width);
      break;
  }
  step.kernels.quantise_row(args);
}

QuantInput quantised_rows(const InputQuant& quant, const ActRows& rows, int64_t width, const float* scales) {
  QuantInput input = {.base = rows.base, .stride = rows.stride};
  if (quant.kind == InputQuantKind::kStatic) input.scales = {.scales = &quant.scale.scale, .ld = 0};
  if (quant.kind == InputQuantKind::kToken) input.scales = {.scales = scales, .ld = 1};
  if (quant.kind == InputQuantKind::kGroup) {
    input.scales = {.scales = scales, .ld = scales_per_row(width), .per_block = true};
  }
  return input;
}

QuantInput normed_input(const StepContext& step, const InputQuant& quant, int slot) {
  const Workspace& ws = step.ws;
  const int64_t hidden = step.config.hidden_size;
  if (quant.kind == InputQuantKind::kNone) return quantised_rows(quant, ws.normed, hidden, nullptr);
  step.runner.for_each(StepPhase::kNorms, step.num_tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      quantise_row(step, quant, ws.normed.at(row), ws.quantised[slot].at(row), hidden, ws.quantised_scales[slot], row);
    }
  });
  return quantised_rows(quant, ws.quantised[slot], hidden, ws.quantised_scales[slot]);
}

bool same_input(const InputQuant& a, const InputQuant& b) {
  return a.kind == b.kind && (a.kind != InputQuantKind::kStatic || a.scale == b.scale);
}

QuantInput quantise_in_place(const StepContext& step, const InputQuant& quant, const ActRows& rows, int64_t width,
                             float* scales) {
  if (quant.kind != InputQuantKind::kNone) {
    step.runner.for_each(StepPhase::kNorms, step.num_tokens, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        quantise_row(step, quant, rows.at(row), rows.at(row), width, scales, row);
      }
    });
  }
  return quantised_rows(quant, rows, width, scales);
}

}  // namespace hadal
