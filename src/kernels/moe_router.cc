#include "kernels/moe_router.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace hadal {
namespace {

constexpr float kDropped = -std::numeric_limits<float>::infinity();

// Index of the largest value that is not yet taken, the lowest of equals; marks it taken. Every call yields another
// index, NaN or not. Requires one untaken.
int64_t take_largest(const float* values, bool* taken, int64_t n) {
  int64_t best = std::find(taken, taken + n, false) - taken;
  for (int64_t i = best + 1; i < n; ++i) {
    if (!taken[i] && values[i] > values[best]) best = i;
  }
  taken[best] = true;
  return best;
}

// Sum of the two largest choices of a group, or its only one.
float group_score(const float* choice, int64_t size) {
  float first = kDropped, second = kDropped;
  for (int64_t i = 0; i < size; ++i) {
    if (choice[i] > first) {
      second = first;
      first = choice[i];
    } else if (choice[i] > second) {
      second = choice[i];
    }
  }
  return size == 1 ? first : first + second;
}

// Sets the choices of all groups but the topk_group best to -inf.
void drop_groups(const RouterConfig& config, float* choice) {
  const int64_t size = config.n_routed_experts / config.n_group;
  float scores[kMaxRoutedExperts];
  bool kept[kMaxRoutedExperts] = {};
  for (int64_t g = 0; g < config.n_group; ++g) scores[g] = group_score(choice + g * size, size);
  for (int64_t i = 0; i < config.topk_group; ++i) take_largest(scores, kept, config.n_group);
  for (int64_t g = 0; g < config.n_group; ++g) {
    if (!kept[g]) std::fill(choice + g * size, choice + (g + 1) * size, kDropped);
  }
}

}  // namespace

void route_token(const RouterConfig& config, const float* logits, const float* bias, int32_t* expert_ids,
                 float* weights) {
  const int64_t experts = config.n_routed_experts, chosen = config.num_experts_per_tok;
  HADAL_CHECK(experts <= kMaxRoutedExperts && chosen <= experts, "{} of {} experts", chosen, experts);
  float score[kMaxRoutedExperts], choice[kMaxRoutedExperts];
  for (int64_t e = 0; e < experts; ++e) {
    score[e] = 1.0f / (1.0f + std::exp(-logits[e]));
    choice[e] = score[e] + bias[e];
  }
  if (config.n_group > 1) drop_groups(config, choice);

  bool taken[kMaxRoutedExperts] = {};
  for (int64_t i = 0; i < chosen; ++i) expert_ids[i] = static_cast<int32_t>(take_largest(choice, taken, experts));
  std::sort(expert_ids, expert_ids + chosen);

  float sum = 0;
  for (int64_t i = 0; i < chosen; ++i) sum += weights[i] = score[expert_ids[i]];
  const float divisor = config.norm_topk_prob && chosen > 1 ? sum + 1e-20f : 1.0f;
  for (int64_t i = 0; i < chosen; ++i) weights[i] = weights[i] / divisor * config.routed_scaling_factor;
}

}  // namespace hadal
