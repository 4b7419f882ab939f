// The MLP half of RangeObserver: dense, shared and routed experts.
#include <cmath>
#include <utility>

#include "model/range_observer.h"
#include "model/range_passes.h"
#include "model/weights.h"
#include "quant/inc_modules.h"

namespace hadal {

void RangeObserver::observe_mlp(const StepContext& step, const LayerWeights& weights, int64_t layer_idx) {
  LayerRanges& ranges = layer(layer_idx);
  const DType act = step.kernels.act_dtype;
  const size_t leaves = ranges.down_in.size();
  const int64_t leaf_cols = leaves > 0 ? weights.mlp.down.cols / static_cast<int64_t>(leaves) : 0;
  std::vector<float> slots(ranges.down_in);
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
  slots.pop_back();
  ranges.down_in = slots;
  if (weights.is_moe) observe_experts(step, weights, ranges);
}

void RangeObserver::observe_experts(const StepContext& step, const LayerWeights& weights, LayerRanges& ranges) {
  const std::vector<int64_t>& offsets = step.ws.expert_offsets;
  const auto num_experts = static_cast<int64_t>(weights.experts.size());
  step.runner.for_each(StepPhase::kNorms, num_experts, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const auto expert = static_cast<size_t>(i);
      float amax = 0;
      for (int64_t row = offsets[expert]; row < offsets[expert + 1]; ++row) {
        raise_range(amax, largest(step.ws.expert_h.at(row), step.config.moe_intermediate_size, step.kernels.act_dtype));
      }
      raise_range(ranges.expert_down_in[expert], amax);
      ranges.expert_tokens[expert] += static_cast<uint64_t>(offsets[expert + 1] - offsets[expert]);
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
  expert_sums_.resize(static_cast<size_t>(step.num_tokens * hidden));
  for (int64_t rank = 0; rank < world_size; ++rank) {
    const RankShare share = rank_share(set_.dims, rank, world_size).value();  // create() asked for rank 0's
    std::vector<DownSource> sources;
    for (int64_t i = share.expert_begin; i < share.expert_end; ++i) {
      const auto expert = static_cast<size_t>(i);
      const int64_t begin = ws.expert_offsets[expert], count = ws.expert_offsets[expert + 1] - begin;
      if (count == 0) continue;
      sources.push_back({.w = &weights.experts[expert].down,
                         .h = ws.expert_h.at(begin),
                         .ldh = ws.expert_h.stride,
                         .num_tokens = count,
                         .y_rows = ws.expert_rows + begin,
                         .weights = ws.grouped_weights + begin});
    }
    float& slot = ranks[static_cast<size_t>(rank)];
    raise_range(slot, 0);
    if (sources.empty()) continue;
    const DownArgs args = {.sources = sources,
                           .num_leaves = num_leaves_for({step.config.moe_intermediate_size}),
                           .num_tokens = step.num_tokens,
                           .y = expert_sums_.data(),
                           .ldy = hidden};
    HADAL_CHECK(step.kernels.down_scratch_bytes(args) <= ws.scratch_bytes, "workspace too small for down");
    step.runner.for_each(StepPhase::kExperts, sources.front().w->num_panels(),
                         [&](int64_t begin, int64_t end, int worker_idx) {
                           step.kernels.down(args, begin, end, ws.scratch_of(worker_idx));
                         });
    raise_in_parallel(step, step.num_tokens, {&slot, 1}, worker_slots_, [&](int64_t row, std::span<float> own, int) {
      const float amax = largest_f32(expert_sums_.data() + row * hidden, hidden);
      raise_range(own[0], round_to_bf16(amax / step.config.router.routed_scaling_factor));
    });
  }
}

}  // namespace hadal
