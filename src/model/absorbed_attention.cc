#include "model/absorbed_attention.h"

#include <algorithm>
#include <span>

#include "model/quant_attention.h"
#include "model/range_observer.h"

namespace hadal {
namespace {

// One batch of absorbed tokens, given by their rows; order is the first one's row of attention_out.
class AbsorbedBatch {
 public:
  AbsorbedBatch(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv,
                std::span<const int32_t> rows, int64_t order, int64_t layer_idx)
      : step_(step),
        config_(step.config),
        ws_(step.ws),
        layer_(layer),
        kv_(kv),
        rows_(rows),
        order_(order),
        num_tokens_(static_cast<int64_t>(rows.size())),
        layer_idx_(layer_idx) {}

  void run() {
    make_latent_queries();
    attend();
    if (step_.ranges != nullptr) observe();
    project_values();
  }

 private:
  void make_latent_queries() {
    ws_.linears.clear();
    for (int64_t h = 0; h < config_.num_attention_heads; ++h) {
      ws_.linears.push_back({.w = &layer_.heads[static_cast<size_t>(h)].w_uk_t,
                             .x = ws_.q_rotated.at(0, h * config_.qk_head_dim()),
                             .ldx = ws_.q_rotated.stride,
                             .x_rows = rows_.data(),
                             .num_tokens = num_tokens_,
                             .y = ws_.q_latent.at(0, h * config_.kv_lora_rank),
                             .ldy = ws_.q_latent.stride,
                             .y_dtype = step_.kernels.act_dtype});
    }
    run_linears(step_, StepPhase::kAttention, ws_.linears, /*by_item=*/true);
  }

  int64_t num_groups() const { return (config_.num_attention_heads + kHeadGroup - 1) / kHeadGroup; }

  void attend() {
    int64_t longest = 0;
    PhaseCost& cost = step_.runner.profile().of(StepPhase::kAttention);
    for (const int32_t row : rows_) {
      const int64_t positions = step_.plan.positions[static_cast<size_t>(row)] + 1;
      longest = std::max(longest, positions);
      cost.kv_bytes += static_cast<double>(positions * kv_.row_bytes);
      cost.flops += 2.0 * static_cast<double>(positions * config_.num_attention_heads) *
                    static_cast<double>(2 * config_.kv_lora_rank + config_.qk_rope_head_dim);
    }
    const int64_t num_threads = step_.runner.shares().num_threads();
    if (quantises_decode(*layer_.quant)) {
      attend_quantised();
    } else if (longest <= kAttentionSegment) {
      attend_short();
    } else if (num_tokens_ >= 2 * num_threads) {
      attend_by_token();
    } else {
      attend_in_waves(num_attention_segments(longest));
    }
  }

  // One segment: tokens and groups of heads in any order.
  void attend_short() {
    ws_.work.clear();
    ws_.work.add(num_tokens_ * num_groups(), step_.runner.shares());
    step_.runner.run(StepPhase::kAttention, ws_.work, [&](size_t, int64_t begin, int64_t end, int worker_idx) {
      for (int64_t item = begin; item < end; ++item) {
        hadal::attend_absorbed(step_.kernels, args_of(item), ws_.scratch_of(worker_idx));
      }
    });
  }

  // As the numerics plan has it: a token and a group of heads from its first position to its last in one call.
  void attend_quantised() {
    ws_.work.clear();
    ws_.work.add(num_tokens_ * num_groups(), step_.runner.shares());
    step_.runner.run(StepPhase::kAttention, ws_.work, [&](size_t, int64_t begin, int64_t end, int worker_idx) {
      for (int64_t item = begin; item < end; ++item) {
        step_.kernels.attend_quant_absorbed(quant_absorbed_args(step_.numerics, *layer_.quant, args_of(item)),
                                            ws_.scratch_of(worker_idx));
      }
    });
  }

  // Enough tokens for all workers. All heads meet a segment of keys before the next: it is read from memory once.
  void attend_by_token() {
    ws_.work.clear();
    ws_.work.add(num_tokens_, step_.runner.shares());
    step_.runner.run(StepPhase::kAttention, ws_.work, [&](size_t, int64_t begin, int64_t end, int worker_idx) {
      const auto slot = [&](int64_t i) { return ws_.partials_of(worker_idx) + i * ws_.partial_bytes; };
      for (int64_t token = begin; token < end; ++token) {
        const AbsorbedAttentionArgs first = args_of(token * num_groups());
        for (int64_t segment = 0; segment < num_attention_segments(first.num_positions); ++segment) {
          for (int64_t group = 0; group < num_groups(); ++group) {
            const AbsorbedAttentionArgs args = args_of(token * num_groups() + group);
            std::byte* to = segment == 0 ? slot(group) : slot(num_groups());
            step_.kernels.attend_absorbed_segment(args, segment, to, ws_.scratch_of(worker_idx));
            if (segment > 0) step_.kernels.join_absorbed(args, slot(group), to);
          }
        }
        for (int64_t group = 0; group < num_groups(); ++group) {
          step_.kernels.finish_absorbed(args_of(token * num_groups() + group), slot(group));
        }
      }
    });
  }

  // Few tokens: their segments run side by side, some at a time, and are joined in order. Same arithmetic. The groups
  // of heads of one segment follow each other, while its keys are in the caches.
  void attend_in_waves(int64_t num_segments) {
    const int64_t num_items = num_tokens_ * num_groups(), groups = num_groups();
    const int64_t num_threads = step_.runner.shares().num_threads();
    const int64_t wave = std::max<int64_t>(2, (4 * num_threads + num_items - 1) / num_items);
    // Slot 0 of an item is its state, slot i the i-th segment of the wave.
    const auto slot = [&](int64_t item, int64_t i) { return ws_.partials + (item * wave + i) * ws_.partial_bytes; };
    for (int64_t wave_begin = 0; wave_begin < num_segments; wave_begin += wave - 1) {
      const int64_t first = wave_begin == 0 ? 0 : wave_begin + 1;  // the first segment of all is the first state
      const int64_t last = std::min(wave_begin + wave - 1, num_segments - 1);
      const int64_t per_item = last - first + 1;
      if (per_item <= 0) break;
      ws_.work.clear();
      ws_.work.add(num_items * per_item, step_.runner.shares());
      step_.runner.run(StepPhase::kAttention, ws_.work, [&](size_t, int64_t begin, int64_t end, int worker_idx) {
        for (int64_t unit = begin; unit < end; ++unit) {
          const int64_t segment = first + unit / groups % per_item;
          const int64_t item = unit / (groups * per_item) * groups + unit % groups;
          const AbsorbedAttentionArgs args = args_of(item);
          if (segment >= num_attention_segments(args.num_positions)) continue;
          step_.kernels.attend_absorbed_segment(args, segment, slot(item, segment - wave_begin),
                                                ws_.scratch_of(worker_idx));
        }
      });
      join_wave(
          num_items, first, last, num_segments,
          [&](int64_t item, int64_t segment) { return slot(item, segment - wave_begin); },
          [&](int64_t item) { return slot(item, 0); });
    }
  }

  template <typename PartialOf, typename StateOf>
  void join_wave(int64_t num_items, int64_t first, int64_t last, int64_t num_segments, PartialOf partial_of,
                 StateOf state_of) {
    step_.runner.for_each(StepPhase::kAttention, num_items, [&](int64_t begin, int64_t end, int) {
      for (int64_t item = begin; item < end; ++item) {
        const AbsorbedAttentionArgs args = args_of(item);
        const int64_t end_segment = std::min(last + 1, num_attention_segments(args.num_positions));
        for (int64_t segment = std::max<int64_t>(first, 1); segment < end_segment; ++segment) {
          step_.kernels.join_absorbed(args, state_of(item), partial_of(item, segment));
        }
        if (last == num_segments - 1) step_.kernels.finish_absorbed(args, state_of(item));
      }
    });
  }

  void observe() {
    step_.ranges->observe_absorbed(step_, layer_idx_, num_tokens_ * num_groups(),
                                   [this](int64_t item) { return args_of(item); });
  }

  // Item: a token and a group of heads.
  AbsorbedAttentionArgs args_of(int64_t item) const {
    const int64_t token = item / num_groups(), first_head = item % num_groups() * kHeadGroup;
    const int32_t row = rows_[static_cast<size_t>(token)];
    return {.q_latent = ws_.q_latent.at(token, first_head * config_.kv_lora_rank),
            .q_latent_stride = config_.kv_lora_rank,
            .q_rope = ws_.q_rotated.at(row, first_head * config_.qk_head_dim() + config_.qk_nope_head_dim),
            .q_rope_stride = config_.qk_head_dim(),
            .num_heads = std::min(kHeadGroup, config_.num_attention_heads - first_head),
            .kv_lora_rank = config_.kv_lora_rank,
            .qk_rope_head_dim = config_.qk_rope_head_dim,
            .scale = static_cast<float>(step_.rope.softmax_scale),
            .kv = &kv_,
            .block_table = step_.plan.block_tables[static_cast<size_t>(row)],
            .num_positions = step_.plan.positions[static_cast<size_t>(row)] + 1,
            .out = ws_.attended.at(token, first_head * config_.kv_lora_rank),
            .out_stride = config_.kv_lora_rank};
  }

  void project_values() {
    ws_.linears.clear();
    for (int64_t h = 0; h < config_.num_attention_heads; ++h) {
      ws_.linears.push_back({.w = &layer_.heads[static_cast<size_t>(h)].w_uv,
                             .x = ws_.attended.at(0, h * config_.kv_lora_rank),
                             .ldx = ws_.attended.stride,
                             .num_tokens = num_tokens_,
                             .y = ws_.attention_out.at(order_, h * config_.v_head_dim),
                             .ldy = ws_.attention_out.stride,
                             .y_dtype = step_.kernels.act_dtype});
    }
    run_linears(step_, StepPhase::kAttention, ws_.linears, /*by_item=*/true);
  }

  const StepContext& step_;
  const ModelConfig& config_;
  Workspace& ws_;
  const LayerWeights& layer_;
  const PagedKvView& kv_;
  const std::span<const int32_t> rows_;
  const int64_t order_;
  const int64_t num_tokens_;
  const int64_t layer_idx_;
};

}  // namespace

void attend_absorbed(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv, int64_t layer_idx,
                     int64_t begin, int64_t end) {
  const std::span<const int32_t> rows = step.plan.absorbed_rows;
  const int64_t num_expanded = step.num_tokens - static_cast<int64_t>(rows.size());
  for (; begin < end; begin += kAbsorbedBatchTokens) {
    const int64_t count = std::min(end - begin, kAbsorbedBatchTokens);
    const auto batch = rows.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
    AbsorbedBatch(step, layer, kv, batch, num_expanded + begin, layer_idx).run();
  }
}

}  // namespace hadal
