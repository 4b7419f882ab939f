// Calibration: records the largest magnitude of every tensor that a static scale may be made for, while a model runs
// real tokens (quant/range_set.h: per head, expert and K-leaf, so that one run serves any world size). Values are those
// of the model as it runs, unquantised; the model's own bits do not change. What only the peer computes is computed
// here as it does: expanded keys and values by the model's linears, decode attention in blocks of 128 tokens
// (kernels/quant_attention.h), the combined expert output of each rank of the world sizes asked for. Facts:
// spec/gaudi-pipeline.md 3.2.
//
// Of a model on several ranks each has an observer, which sees its rank's heads, leaves and experts; gather() makes the
// whole of them, bit for bit what one rank sees (of the same expert_parallel).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/quant_attention.h"
#include "model/config.h"
#include "quant/range_set.h"

namespace hadal {

class Communicator;
struct LayerWeights;
struct StepContext;

// K-leaves are 16, or the largest smaller power of two that divides a width.
RangeDims range_dims(const ModelConfig& config);

// Owned by the caller and longer-lived than the model it is given to (LoadOptions::ranges), which must keep its cache
// in the act dtype and quantise no input. Single-owner: the thread that calls forward().
class RangeObserver {
 public:
  // world_sizes: for which MoE outputs are recorded; may be empty. Errors: kInvalidArgument for sizes that
  // rank_share() refuses, and for dimensions that check_range_dims() does.
  static Expected<RangeObserver> create(const ModelConfig& config, std::vector<int64_t> world_sizes);

  // Ranges so far: of this rank, on rank 0 those of the last gather() too. Weights are measured when their layer is
  // first run.
  const RangeSet& ranges() const { return set_; }
  // On all ranks at once, between steps: raises rank 0's ranges by those of the others. Errors: the communicator's;
  // kCorrupt naming the rank whose ranges are of another model.
  Status gather(Communicator& ranks);
  // Continues from an earlier run: replaces the ranges. Errors: kInvalidArgument (another model or other world sizes).
  Status resume(RangeSet set);

  // Called by the layers, between parallel sections.

  // After attention, before o_proj: ws.normed is still the layer's input.
  void observe_attention(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv, int64_t layer_idx);
  // After a batch of absorbed tokens: item = token * num_groups + group of heads.
  using ArgsOfItem = std::function<AbsorbedAttentionArgs(int64_t item)>;
  void observe_absorbed(const StepContext& step, int64_t layer_idx, int64_t num_items, const ArgsOfItem& args_of);
  // Before the input of down_proj is quantised: ws.mlp_h of a dense layer, ws.expert_h and ws.mlp_h of a MoE layer.
  // Overwrites ws.delta, and sums over the ranks: for the expert outputs. A sum that fails leaves them as they were;
  // the layer's own sum, which comes next, then fails too.
  void observe_mlp(const StepContext& step, const LayerWeights& layer, int64_t layer_idx);

 private:
  RangeObserver(const RangeDims& dims, std::vector<int64_t> world_sizes);

  LayerRanges& layer(int64_t layer_idx) { return set_.layers[static_cast<size_t>(layer_idx)]; }
  void measure_weights(const StepContext& step, const LayerWeights& weights, int64_t layer_idx);
  void observe_rows(const StepContext& step, const PagedKvView& kv, LayerRanges& ranges);
  void observe_expanded(const StepContext& step, const LayerWeights& weights, const PagedKvView& kv,
                        LayerRanges& ranges);
  void observe_experts(const StepContext& step, const LayerWeights& weights, LayerRanges& ranges);
  void observe_moe_output(const StepContext& step, const LayerWeights& weights, int64_t world_size,
                          std::span<float> ranks);

  RangeSet set_;
  std::vector<int64_t> world_sizes_;
  std::vector<std::byte> latents_;   // [expanded tokens, kv_lora_rank] act
  std::vector<std::byte> scratch_;   // per worker
  std::vector<float> worker_slots_;  // per worker
};

}  // namespace hadal
