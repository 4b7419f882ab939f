// Rotary position embedding with YaRN (arXiv 2309.00071), as modeling_deepseek.py computes it: applied at every length.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace hadal {

struct RopeParameters {
  std::vector<double> inv_freq;  // [qk_rope_head_dim / 2] radians per position
  double cos_sin_factor = 1;     // m(factor, mscale) / m(factor, mscale_all_dim)
  double softmax_scale = 1;      // qk_head_dim ^ -1/2, times m(factor, mscale_all_dim) ^ 2 with YaRN
};

RopeParameters make_rope_parameters(const ModelConfig& config);

// cos, sin: [inv_freq.size()] of the angles position * inv_freq (formed in F64), times cos_sin_factor.
void rope_cos_sin(const RopeParameters& rope, int64_t position, float* cos, float* sin);

}  // namespace hadal
