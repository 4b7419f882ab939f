#include <algorithm>
#include <optional>

#include "model/act_quant.h"
#include "model/layers.h"
#include "model/quant_attention.h"
#include "model/range_observer.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

void project_down(const StepContext& step, const LayerWeights& layer) {
  const ModelConfig& config = step.config;
  Workspace& ws = step.ws;
  const auto from = [&](const QuantInput& x, const PackedMatrix& w, float* y) {
    return LinearArgs{.w = &w,
                      .x = x.base,
                      .ldx = x.stride,
                      .x_scales = x.scales,
                      .num_tokens = step.num_tokens,
                      .y = y,
                      .ldy = w.rows,
                      .round_to_bf16 = step.numerics.bf16_results};
  };
  const InputQuant& q_quant = config.q_lora_rank > 0 ? layer.quant->q_a.input : layer.quant->q_b.input;
  const InputQuant& kv_quant = layer.quant->kv_a.input;
  const QuantInput q_input = normed_input(step, q_quant, 0);
  const QuantInput kv_input = same_input(q_quant, kv_quant) ? q_input : normed_input(step, kv_quant, 1);
  ws.linears.clear();
  ws.linears.push_back(config.q_lora_rank > 0 ? from(q_input, layer.q_a, ws.q_a) : from(q_input, layer.q, ws.q));
  ws.linears.push_back(from(kv_input, layer.kv_a, ws.kv));
  run_linears(step, StepPhase::kDense, ws.linears);
}

// A cache row in FP8 with a scale of the layer: the act row, then cast.
void write_scaled_latent(const StepContext& step, WriteLatentArgs args, const StaticScale& scale, const PagedKvView& kv,
                         std::byte* scratch) {
  auto* codes = static_cast<uint8_t*>(args.row);
  args.row = scratch;
  args.row_dtype = step.kernels.act_dtype;
  step.kernels.write_latent(args);
  step.kernels.quantise_row({.max_finite = full_scale(step.numerics.range),
                             .inv = scale.inv,
                             .x = scratch,
                             .n = kv.row_elements,
                             .out = scratch});
  for (int64_t i = 0; i < kv.row_elements; ++i) {
    codes[i] = f32_to_e4m3(args.row_dtype == DType::kF32 ? reinterpret_cast<const float*>(scratch)[i]
                                                         : bf16_to_f32(reinterpret_cast<const bf16_t*>(scratch)[i]));
  }
}

// Normalises q_a and writes this step's cache rows.
void write_cache(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv) {
  const ModelConfig& config = step.config;
  Workspace& ws = step.ws;
  const int64_t half_rope = config.qk_rope_head_dim / 2;
  const std::optional<StaticScale>& cache_scale = layer.quant->attention.latent_cache;
  step.runner.for_each(StepPhase::kNorms, step.num_tokens, [&](int64_t begin, int64_t end, int worker_idx) {
    for (int64_t row = begin; row < end; ++row) {
      if (config.q_lora_rank > 0) {
        step.kernels.rms_norm({.x = ws.q_a + row * config.q_lora_rank,
                               .weight = layer.q_a_norm,
                               .dim = config.q_lora_rank,
                               .eps = config.latent_norm_eps,
                               .out = ws.q_a_normed.at(row)});
        quantise_row(step, layer.quant->q_b.input, ws.q_a_normed.at(row), ws.q_a_normed.at(row), config.q_lora_rank,
                     ws.row_scales, row);
      }
      const auto row_idx = static_cast<size_t>(row);
      const WriteLatentArgs latent = {.kv = ws.kv + row * kv.row_elements,
                                      .weight = layer.kv_a_norm,
                                      .eps = config.latent_norm_eps,
                                      .kv_lora_rank = config.kv_lora_rank,
                                      .qk_rope_head_dim = config.qk_rope_head_dim,
                                      .cos = ws.cos + row * half_rope,
                                      .sin = ws.sin + row * half_rope,
                                      .row_dtype = kv.dtype,
                                      .row = kv.row(step.plan.block_tables[row_idx], step.plan.positions[row_idx])};
      if (cache_scale) {
        write_scaled_latent(step, latent, *cache_scale, kv, ws.scratch_of(worker_idx));
      } else {
        step.kernels.write_latent(latent);
      }
    }
  });
}

void make_queries(const StepContext& step, const LayerWeights& layer) {
  const ModelConfig& config = step.config;
  Workspace& ws = step.ws;
  const int64_t half_rope = config.qk_rope_head_dim / 2;
  const int64_t q_size = config.num_attention_heads * config.qk_head_dim();
  if (config.q_lora_rank > 0) {
    const QuantInput x = quantised_rows(layer.quant->q_b.input, ws.q_a_normed, config.q_lora_rank, ws.row_scales);
    const LinearArgs args = {.w = &layer.q,
                             .x = x.base,
                             .ldx = x.stride,
                             .x_scales = x.scales,
                             .num_tokens = step.num_tokens,
                             .y = ws.q,
                             .ldy = q_size,
                             .round_to_bf16 = step.numerics.bf16_results};
    run_linears(step, StepPhase::kDense, {&args, 1});
  }
  step.runner.for_each(StepPhase::kNorms, step.num_tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      step.kernels.query_rope({.q = ws.q + row * q_size,
                               .num_heads = config.num_attention_heads,
                               .qk_nope_head_dim = config.qk_nope_head_dim,
                               .qk_rope_head_dim = config.qk_rope_head_dim,
                               .cos = ws.cos + row * half_rope,
                               .sin = ws.sin + row * half_rope,
                               .out = ws.q_rotated.at(row)});
    }
  });
}

// Useful work: causal pairs, and the projection of the new tokens' latents. Projecting older ones again is overhead.
void count_expanded(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv) {
  const ModelConfig& config = step.config;
  const auto heads = static_cast<double>(config.num_attention_heads);
  const HeadWeights& head = layer.heads.front();
  PhaseCost& cost = step.runner.profile().of(StepPhase::kAttention);
  cost.weight_bytes += heads * static_cast<double>(head.w_uk.panels_bytes() + head.w_uv.panels_bytes());
  for (const ExpandedSpan& span : step.plan.expanded) {
    const auto queries = static_cast<double>(span.num_tokens), first = static_cast<double>(span.first_position);
    const double pairs = queries * first + queries * (queries + 1) / 2;
    cost.flops += 2 * heads * pairs * static_cast<double>(config.qk_head_dim() + config.v_head_dim);
    cost.flops += 2 * heads * queries * static_cast<double>((head.w_uk.rows + head.w_uv.rows) * config.kv_lora_rank);
    cost.kv_bytes += (first + queries) * static_cast<double>(kv.row_bytes);
  }
}

void attend_expanded_span(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv,
                          const ExpandedSpan& span, int64_t head_idx, std::byte* scratch) {
  const ModelConfig& config = step.config;
  const Workspace& ws = step.ws;
  const HeadWeights& head = layer.heads[static_cast<size_t>(head_idx)];
  const ExpandedAttentionArgs args = {.q = ws.q_rotated.at(span.row, head_idx * config.qk_head_dim()),
                                      .q_stride = ws.q_rotated.stride,
                                      .num_queries = span.num_tokens,
                                      .first_position = span.first_position,
                                      .kv_lora_rank = config.kv_lora_rank,
                                      .qk_nope_head_dim = config.qk_nope_head_dim,
                                      .qk_rope_head_dim = config.qk_rope_head_dim,
                                      .v_head_dim = config.v_head_dim,
                                      .w_uk = &head.w_uk,
                                      .w_uv = &head.w_uv,
                                      .scale = static_cast<float>(step.rope.softmax_scale),
                                      .kv = &kv,
                                      .block_table = span.block_table,
                                      .out = ws.attention_out.at(span.order, head_idx * config.v_head_dim),
                                      .out_stride = ws.attention_out.stride};
  if (quantises_prefill(*layer.quant)) {
    step.kernels.attend_quant_expanded(quant_expanded_args(step.numerics, *layer.quant, head, args), scratch);
  } else {
    step.kernels.attend_expanded(args, scratch);
  }
}

void attend_expanded(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv) {
  Workspace& ws = step.ws;
  const int64_t heads = step.config.num_attention_heads;
  if (step.plan.expanded.empty()) return;
  count_expanded(step, layer, kv);
  ws.work.clear();
  // Head by head, so that a head's matrices stay on the NUMA node that holds them.
  for (int64_t head = 0; head < heads; ++head) {
    ws.work.add_on_node(static_cast<int64_t>(step.plan.expanded.size()), step.runner.shares().node_of(head, heads));
  }
  step.runner.run(StepPhase::kAttention, ws.work, [&](size_t head, int64_t begin, int64_t end, int worker_idx) {
    for (int64_t span = begin; span < end; ++span) {
      attend_expanded_span(step, layer, kv, step.plan.expanded[static_cast<size_t>(span)], static_cast<int64_t>(head),
                           ws.scratch_of(worker_idx));
    }
  });
}

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

void attend_absorbed(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv, int64_t layer_idx) {
  const std::span<const int32_t> rows = step.plan.absorbed_rows;
  const int64_t num_expanded = step.num_tokens - static_cast<int64_t>(rows.size());
  for (size_t begin = 0; begin < rows.size(); begin += kAbsorbedBatchTokens) {
    const size_t count = std::min(rows.size() - begin, static_cast<size_t>(kAbsorbedBatchTokens));
    AbsorbedBatch(step, layer, kv, rows.subspan(begin, count), num_expanded + static_cast<int64_t>(begin), layer_idx)
        .run();
  }
}

}  // namespace

void run_attention_layer(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv, int64_t layer_idx) {
  project_down(step, layer);
  write_cache(step, layer, kv);
  make_queries(step, layer);
  attend_expanded(step, layer, kv);
  attend_absorbed(step, layer, kv, layer_idx);
  if (step.ranges != nullptr) step.ranges->observe_attention(step, layer, kv, layer_idx);

  const int64_t heads = step.config.num_attention_heads;
  const QuantInput h =
      quantise_in_place(step, layer.quant->o.input, step.ws.attention_out, layer.o.cols, step.ws.row_scales);
  const DownSource source = {.w = &layer.o,
                             .h = h.base,
                             .ldh = h.stride,
                             .h_scales = h.scales,
                             .num_tokens = step.num_tokens,
                             .y_rows = step.plan.row_of_order.data()};
  run_down(step, StepPhase::kDense, {&source, 1}, num_leaves_for({heads}));
}

}  // namespace hadal
