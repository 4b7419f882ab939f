// What a forward step must read and multiply, from the model's shapes alone, by phase (model/step_profile.h). Pure
// functions. Definitions: every distinct weight once per step; FLOPs 2 per multiply-add that the mathematics needs.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"
#include "model/step_profile.h"

namespace hadal {

enum class AttentionForm {
  kAbsorbed,  // queries against the latent cache: 2 kv_lora_rank + qk_rope_head_dim multiply-adds per head and pair
  kExpanded,  // keys and values per head: qk_head_dim + v_head_dim
};

// Consecutive tokens of one sequence, all in one form.
struct SequenceCost {
  int64_t num_tokens = 1;
  int64_t first_position = 0;  // tokens before it are in the cache
  AttentionForm form = AttentionForm::kAbsorbed;
};

struct StepShape {
  std::vector<SequenceCost> sequences;
  int64_t logit_rows = 0;
};

// `batch` sequences, one token each, `depth` tokens in the cache of each.
StepShape decode_shape(int64_t batch, int64_t depth);

// A prompt in steps of at most chunk_tokens: tokens of full tiles expanded, the tail absorbed, logits of the last row.
// chunk_tokens is rounded down to whole tiles, at least one.
std::vector<StepShape> prefill_shapes(int64_t prompt_tokens, int64_t chunk_tokens, int64_t tile_tokens);

// How the model lies on its devices, and in which formats. Defaults: one device, everything as the checkpoint stores
// it.
struct WeightLayout {
  // Ranks share heads, dense and shared MLPs, vocabulary and, by slices of their width, experts. Latent projections,
  // router, norms and the latent cache are on every rank, as in tensor-parallel vLLM.
  int num_ranks = 1;
  bool expert_parallel = false;  // whole experts per rank instead of slices
  double kv_b_bytes = 0;         // per element of kv_b_proj; 0: as the checkpoint. This program's kernels keep BF16: 2
  double kv_element_bytes = 2;   // of the latent cache
};

// Expected distinct experts that `tokens` tokens touch in one layer under uniform routing: n (1 - (1 - k / n)^tokens).
double expected_distinct_experts(const RouterConfig& router, double tokens);

// The expected largest of `bins` equal shares of `count` things thrown at random, at most `bin_capacity`:
// mean + sqrt(2 mean (1 - mean / capacity) ln bins), the usual bound for the maximum of near-normal counts.
double expected_largest_share(double count, double bins, double bin_capacity);

// Routed experts of one layer on its busiest rank. An expert with few tokens waits for its weights, one with many for
// the multipliers: times need the distribution, not the sums.
struct RoutedCost {
  double expert_bytes = 0;       // one expert's weights, on one rank
  double token_flops = 0;        // one token's through one expert, on one rank
  double num_experts = 0;        // on the rank
  double visit_probability = 0;  // that a token visits a given expert
  double imbalance = 1;          // work of the busiest rank / mean
  double distinct = 0;           // expected experts touched on the busiest rank
  double visits = 0;             // expected (token, expert) pairs there
};
RoutedCost routed_cost(const ModelConfig& config, double tokens, const WeightLayout& layout);

// Weight bytes, cache bytes and FLOPs of one step on its busiest rank; times and barriers are zero. Shared experts
// count under kExperts, as in a measured profile.
StepProfile step_cost(const ModelConfig& config, const StepShape& shape, const WeightLayout& layout = {});

// Bytes that one cached token takes on a rank, over all layers.
double kv_bytes_per_token_on_rank(const ModelConfig& config, const WeightLayout& layout);

// Bytes of the weights on a rank, in memory: kv_b_proj counts as layout.kv_b_bytes plus, where that is set, half of it
// again for the transposed key part. Without MTP layers: this program and the seed load none.
double weight_bytes_per_rank(const ModelConfig& config, const WeightLayout& layout);

// Bytes of the published checkpoint's tensors, MTP layers included.
double checkpoint_bytes(const ModelConfig& config);

}  // namespace hadal
