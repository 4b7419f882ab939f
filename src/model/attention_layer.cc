#include <algorithm>
#include <optional>

#include "model/absorbed_attention.h"
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

ExpandedAttentionArgs expanded_args(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv,
                                    const ExpandedSpan& span, int64_t head_idx) {
  const ModelConfig& config = step.config;
  const Workspace& ws = step.ws;
  const HeadWeights& head = layer.heads[static_cast<size_t>(head_idx)];
  return {.q = ws.q_rotated.at(span.row, head_idx * config.qk_head_dim()),
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
}

void attend_expanded_span(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv,
                          const ExpandedSpan& span, int64_t head_idx, std::byte* scratch) {
  const ExpandedAttentionArgs args = expanded_args(step, layer, kv, span, head_idx);
  if (quantises_prefill(*layer.quant)) {
    const HeadWeights& head = layer.heads[static_cast<size_t>(head_idx)];
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

int64_t num_segments_of(const ExpandedSpan& span) {
  return num_attention_segments(span.first_position + span.num_tokens);
}

bool runs_in_parts(const StepContext& step, const LayerWeights& layer) {
  return step.kernels.attend_expanded_part != nullptr && !quantises_prefill(*layer.quant);
}

// Segments [begin, end) of one wave. Worker w's scratch keeps the state of the w-th pair, whoever computes it.
void attend_wave(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv, int64_t wave, int64_t begin,
                 int64_t end) {
  Workspace& ws = step.ws;
  const NodeShares& shares = step.runner.shares();
  const int64_t heads = step.config.num_attention_heads;
  const auto spans = static_cast<int64_t>(step.plan.expanded.size());
  const auto pair_of = [&](size_t worker) {  // of its node's, head by head; -1: none left
    const int node = shares.node_of_worker[worker];
    const int64_t first = shares.begin(heads, node) * spans, last = shares.begin(heads, node + 1) * spans;
    const int64_t pair = first + wave * shares.num_workers_of(node) + shares.rank_in_node(static_cast<int>(worker));
    return pair < last ? pair : -1;
  };
  ws.work.clear();
  for (size_t worker = 0; worker < shares.node_of_worker.size(); ++worker) {
    ws.work.add_on_node(pair_of(worker) >= 0 ? 1 : 0, shares.node_of_worker[worker]);
  }
  step.runner.run(StepPhase::kAttention, ws.work, [&](size_t worker, int64_t, int64_t, int) {
    const int64_t pair = pair_of(worker);
    const ExpandedSpan& span = step.plan.expanded[static_cast<size_t>(pair % spans)];
    std::byte* scratch = ws.scratch_of(static_cast<int>(worker));
    if (!runs_in_parts(step, layer)) return attend_expanded_span(step, layer, kv, span, pair / spans, scratch);
    const int64_t stop = std::min(end, num_segments_of(span));
    if (begin >= stop) return;
    step.kernels.attend_expanded_part(expanded_args(step, layer, kv, span, pair / spans), begin, stop, scratch);
  });
}

}  // namespace

ExpandedUnits expanded_units(const StepContext& step, const LayerWeights& layer) {
  const NodeShares& shares = step.runner.shares();
  const auto spans = static_cast<int64_t>(step.plan.expanded.size());
  ExpandedUnits units;
  for (int node = 0; node < shares.num_nodes && spans > 0; ++node) {
    const int64_t heads = step.config.num_attention_heads;
    const int64_t pairs = (shares.begin(heads, node + 1) - shares.begin(heads, node)) * spans;
    const int64_t workers = shares.num_workers_of(node);
    units.num_waves = std::max(units.num_waves, (pairs + workers - 1) / workers);
    units.num_segments = 1;
  }
  if (!runs_in_parts(step, layer)) return units;
  for (const ExpandedSpan& span : step.plan.expanded) {
    units.num_segments = std::max(units.num_segments, num_segments_of(span));
  }
  return units;
}

void attend_expanded_units(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv,
                           const ExpandedUnits& units, int64_t begin, int64_t end) {
  if (begin == 0 && end == units.num_units()) return attend_expanded(step, layer, kv);
  if (begin == 0) count_expanded(step, layer, kv);
  while (begin < end) {
    const int64_t wave = begin / units.num_segments, first = begin % units.num_segments;
    const int64_t count = std::min(end - begin, units.num_segments - first);
    attend_wave(step, layer, kv, wave, first, first + count);
    begin += count;
  }
}

void run_attention_input(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv) {
  project_down(step, layer);
  write_cache(step, layer, kv);
  make_queries(step, layer);
}

Status run_attention_layer(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv,
                           int64_t layer_idx) {
  run_attention_input(step, layer, kv);
  attend_expanded(step, layer, kv);
  attend_absorbed(step, layer, kv, layer_idx, 0, static_cast<int64_t>(step.plan.absorbed_rows.size()));
  return run_attention_output(step, layer, kv, layer_idx);
}

Status run_attention_output(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv,
                            int64_t layer_idx) {
  if (step.ranges != nullptr) step.ranges->observe_attention(step, layer, kv, layer_idx);

  const QuantInput h =
      quantise_in_place(step, layer.quant->o.input, step.ws.attention_out, layer.o.cols, step.ws.row_scales);
  const DownSource source = {.w = &layer.o,
                             .h = h.base,
                             .ldh = h.stride,
                             .h_scales = h.scales,
                             .num_tokens = step.num_tokens,
                             .y_rows = step.plan.row_of_order.data()};
  return run_down(step, StepPhase::kDense, {&source, 1}, step.layout.attention_leaves);
}

}  // namespace hadal
