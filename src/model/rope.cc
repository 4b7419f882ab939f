#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace hadal {
namespace {

// The attention temperature of YaRN; named yarn_get_mscale upstream.
double yarn_magnitude(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// The dimension that turns `rotations` times within the original context.
double yarn_dimension(const ModelConfig& config, double rotations) {
  const double context = static_cast<double>(config.yarn->original_max_position_embeddings);
  return static_cast<double>(config.qk_rope_head_dim) * std::log(context / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(config.rope_theta));
}

void apply_yarn(const ModelConfig& config, std::vector<double>& inv_freq) {
  const YarnConfig& yarn = *config.yarn;
  const double low = std::max(std::floor(yarn_dimension(config, yarn.beta_fast)), 0.0);
  double high =
      std::min(std::ceil(yarn_dimension(config, yarn.beta_slow)), static_cast<double>(config.qk_rope_head_dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inv_freq[i] = inv_freq[i] / yarn.factor * ramp + inv_freq[i] * (1 - ramp);
  }
}

}  // namespace

RopeParameters make_rope_parameters(const ModelConfig& config) {
  RopeParameters rope;
  const double dim = static_cast<double>(config.qk_rope_head_dim);
  rope.inv_freq.resize(static_cast<size_t>(config.qk_rope_head_dim / 2));
  for (size_t i = 0; i < rope.inv_freq.size(); ++i) {
    rope.inv_freq[i] = std::pow(config.rope_theta, -2.0 * static_cast<double>(i) / dim);
  }
  rope.softmax_scale = 1 / std::sqrt(static_cast<double>(config.qk_head_dim()));
  if (config.yarn) {
    apply_yarn(config, rope.inv_freq);
    const YarnConfig& yarn = *config.yarn;
    const double all_dim = yarn_magnitude(yarn.factor, yarn.mscale_all_dim);
    rope.cos_sin_factor = yarn_magnitude(yarn.factor, yarn.mscale) / all_dim;
    rope.softmax_scale *= all_dim * all_dim;
  }
  return rope;
}

void rope_cos_sin(const RopeParameters& rope, int64_t position, float* cos, float* sin) {
  for (size_t i = 0; i < rope.inv_freq.size(); ++i) {
    const double angle = static_cast<double>(position) * rope.inv_freq[i];
    cos[i] = static_cast<float>(std::cos(angle) * rope.cos_sin_factor);
    sin[i] = static_cast<float>(std::sin(angle) * rope.cos_sin_factor);
  }
}

}  // namespace hadal
