// The MLP half of RangeObserver: dense, shared and routed experts.
#include <algorithm>
#include <cmath>

#include "model/range_observer.h"
#include "model/range_passes.h"
#include "model/weights.h"
#include "quant/inc_modules.h"

namespace hadal {

void RangeObserver::observe_mlp(const StepContext& step, const LayerWeights& weights, int64_t layer_idx) {
  LayerRanges& ranges = layer(layer_idx);
  const DType act = step.kernels.act_dtype;
  const std::span<float> down_in = own_part(step, ranges.down_in);
  const size_t leaves = down_in.size();
  const int64_t leaf_cols = leaves > 0 ? weights.mlp.down.cols / static_cast<int64_t>(leaves) : 0;
  std::vector<float> slots(down_in.begin(), down_in.end());
  slots.push_back(ranges.mlp_in);
  raise_in_parallel(step, step.num_tokens, slots, worker_slots_,
                    [&](int64_t row, std::span<float> own, int /*worker_idx*/) {
                      for (size_t leaf = 0; leaf < leaves; ++leaf) {
                        const auto first_col = static_cast<int64_t>(leaf) * leaf_cols;
                        raise_range(own[leaf], largest(step.ws.mlp_h.at(row, first_col), leaf_cols, act));
                      }
                      raise_range(own[leaves], largest(step.ws.normed.at(row), step.config.hidden_size, act));
                    });
  ranges.mlp_in = slots.back();
  std::copy_n(slots.begin(), leaves, down_in.begin());
  if (weights.is_moe) observe_experts(step, weights, ranges);
}

void RangeObserver::observe_experts(const StepContext& step, const LayerWeights& weights, LayerRanges& ranges) {
  const std::vector<int64_t>& offsets = step.ws.expert_offsets;
  // Every rank knows where all tokens go, and has rows of its own experts alone.
  for (size_t expert = 0; expert < ranges.expert_tokens.size(); ++expert) {
    ranges.expert_tokens[expert] += static_cast<uint64_t>(offsets[expert + 1] - offsets[expert]);
  }
  const IndexRange& mine = step.layout.experts;
  step.runner.for_each(StepPhase::kNorms, mine.size(), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const auto expert = static_cast<size_t>(mine.begin + i);
      float amax = 0;
      for (int64_t row = offsets[expert]; row < offsets[expert + 1]; ++row) {
        raise_range(amax, largest(step.ws.expert_h.at(row), step.config.moe_intermediate_size, step.kernels.act_dtype));
      }
      raise_range(ranges.expert_down_in[expert], amax);
    }
  });
  for (const int64_t world_size : world_sizes_) {
    observe_moe_output(step, weights, world_size, ranges.moe_out.at(world_size));
  }
}

// Every rank's sum over its experts of router weight * expert output, as the device op returns it: in BF16, before
// routed_scaling_factor (which our weights include).
void RangeObserver::observe_moe_output(const StepContext& step, const LayerWeights& weights, int64_t world_size,
                                       std::span<float> ranks) {
  const Workspace& ws = step.ws;
  const int64_t hidden = step.config.hidden_size;
  const IndexRange& mine = step.layout.experts;
  for (int64_t rank = 0; rank < world_size; ++rank) {
    const RankShare share = rank_share(set_.dims, rank, world_size).value();  // create() asked for rank 0's
    float& slot = ranks[static_cast<size_t>(rank)];
    raise_range(slot, 0);
    const std::vector<int64_t>& offsets = ws.expert_offsets;
    if (offsets[static_cast<size_t>(share.expert_begin)] == offsets[static_cast<size_t>(share.expert_end)]) continue;
    std::vector<DownSource> sources;
    for (int64_t i = std::max(share.expert_begin, mine.begin); i < std::min(share.expert_end, mine.end); ++i) {
      const auto expert = static_cast<size_t>(i);
      const int64_t begin = offsets[expert], count = offsets[expert + 1] - begin;
      if (count == 0) continue;
      sources.push_back({.w = &weights.experts[expert].down,
                         .h = ws.expert_h.at(begin),
                         .ldh = ws.expert_h.stride,
                         .num_tokens = count,
                         .y_rows = ws.expert_rows + begin,
                         .weights = ws.grouped_weights + begin,
                         .leaf = step.layout.leaf_of(i)});
    }
    // A communicator that fails does so from then on: the sum that follows in the layer reports it.
    if (!run_down(step, StepPhase::kExperts, sources, step.layout.moe_leaves)) return;
    raise_in_parallel(step, step.num_tokens, {&slot, 1}, worker_slots_, [&](int64_t row, std::span<float> own, int) {
      const float amax = largest_f32(ws.delta + row * hidden, hidden);
      raise_range(own[0], round_to_bf16(amax / step.config.router.routed_scaling_factor));
    });
  }
}

}  // namespace hadal
