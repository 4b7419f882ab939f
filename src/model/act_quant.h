// Quantised inputs of linears, as the numerics plan asks for them. Internal to model/.
#pragma once

#include "model/step_context.h"

namespace hadal {

// Rows ready to be a linear's input.
struct QuantInput {
  const std::byte* base = nullptr;
  int64_t stride = 0;
  ActScales scales;  // none where the rows are not quantised
};

// Floats that one row of `width` elements may need for its scales.
constexpr int64_t scales_per_row(int64_t width) { return (width + kQuantiseGroup - 1) / kQuantiseGroup; }

// Quantises one row of `width` elements; its scales go to scales + row * (1 or scales_per_row(width)).
void quantise_row(const StepContext& step, const InputQuant& quant, const std::byte* from, std::byte* to, int64_t width,
                  float* scales, int64_t row);

// What the linears get to see of rows quantised so. `quant` outlives the use.
QuantInput quantised_rows(const InputQuant& quant, const ActRows& rows, int64_t width, const float* scales);

// ws.normed as the input of a module: quantised into ws.quantised[slot] where asked for.
QuantInput normed_input(const StepContext& step, const InputQuant& quant, int slot);
// A second module with the same needs shares the first one's rows.
bool same_input(const InputQuant& a, const InputQuant& b);

// Quantises rows [0, num_tokens) in place where asked for.
QuantInput quantise_in_place(const StepContext& step, const InputQuant& quant, const ActRows& rows, int64_t width,
                             float* scales);

}  // namespace hadal
