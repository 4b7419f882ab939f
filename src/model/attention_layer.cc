#include <algorithm>

#include "model/layers.h"

namespace hadal {
namespace {

void project_down(const StepContext& step, const LayerWeights& layer) {
  const ModelConfig& config = step.config;
  Workspace& ws = step.ws;
  const auto from_normed = [&](const PackedMatrix& w, float* y) {
    return LinearArgs{
        .w = &w, .x = ws.normed, .ldx = config.hidden_size, .num_tokens = step.num_tokens, .y = y, .ldy = w.rows};
  };
  ws.linears.clear();
  ws.linears.push_back(config.q_lora_rank > 0 ? from_normed(layer.q_a, ws.q_a) : from_normed(layer.q, ws.q));
  ws.linears.push_back(from_normed(layer.kv_a, ws.kv));
  run_linears(step, ws.linears);
}

// Normalises q_a and writes this step's cache rows.
void write_cache(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv) {
  const ModelConfig& config = step.config;
  Workspace& ws = step.ws;
  const int64_t half_rope = config.qk_rope_head_dim / 2;
  step.pool.parallel_for(step.num_tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      if (config.q_lora_rank > 0) {
        step.kernels.rms_norm({.x = ws.q_a + row * config.q_lora_rank,
                               .weight = layer.q_a_norm,
                               .dim = config.q_lora_rank,
                               .eps = config.latent_norm_eps,
                               .out = step.act_row(ws.q_a_normed, row, config.q_lora_rank)});
      }
      const auto row_idx = static_cast<size_t>(row);
      step.kernels.write_latent({.kv = ws.kv + row * kv.row_elements,
                                 .weight = layer.kv_a_norm,
                                 .eps = config.latent_norm_eps,
                                 .kv_lora_rank = config.kv_lora_rank,
                                 .qk_rope_head_dim = config.qk_rope_head_dim,
                                 .cos = ws.cos + row * half_rope,
                                 .sin = ws.sin + row * half_rope,
                                 .row = kv.row(step.plan.block_tables[row_idx], step.plan.positions[row_idx])});
    }
  });
}

void make_queries(const StepContext& step, const LayerWeights& layer) {
  const ModelConfig& config = step.config;
  Workspace& ws = step.ws;
  const int64_t half_rope = config.qk_rope_head_dim / 2;
  const int64_t q_size = config.num_attention_heads * config.qk_head_dim();
  if (config.q_lora_rank > 0) {
    const LinearArgs args = {.w = &layer.q,
                             .x = ws.q_a_normed,
                             .ldx = config.q_lora_rank,
                             .num_tokens = step.num_tokens,
                             .y = ws.q,
                             .ldy = q_size};
    run_linears(step, {&args, 1});
  }
  step.pool.parallel_for(step.num_tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      step.kernels.query_rope({.q = ws.q + row * q_size,
                               .num_heads = config.num_attention_heads,
                               .qk_nope_head_dim = config.qk_nope_head_dim,
                               .qk_rope_head_dim = config.qk_rope_head_dim,
                               .cos = ws.cos + row * half_rope,
                               .sin = ws.sin + row * half_rope,
                               .out = step.act_row(ws.q_rotated, row, q_size)});
    }
  });
}

void attend_expanded(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv) {
  const ModelConfig& config = step.config;
  Workspace& ws = step.ws;
  const int64_t heads = config.num_attention_heads;
  const int64_t q_size = heads * config.qk_head_dim(), out_size = heads * config.v_head_dim;
  const int64_t num_items = static_cast<int64_t>(step.plan.expanded.size()) * heads;
  step.pool.parallel_for(
      num_items,
      [&](int64_t begin, int64_t end, int worker_idx) {
        for (int64_t item = begin; item < end; ++item) {
          const ExpandedSpan& span = step.plan.expanded[static_cast<size_t>(item / heads)];
          const int64_t head_idx = item % heads;
          const HeadWeights& head = layer.heads[static_cast<size_t>(head_idx)];
          step.kernels.attend_expanded(
              {.q = step.act_row(ws.q_rotated, span.row * q_size + head_idx * config.qk_head_dim(), 1),
               .q_stride = q_size,
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
               .out = step.act_row(ws.attention_out, span.order * out_size + head_idx * config.v_head_dim, 1),
               .out_stride = out_size},
              ws.scratch_of(worker_idx));
        }
      },
      1);
}

// One batch of absorbed tokens, given by their rows; order is the first one's row of attention_out.
class AbsorbedBatch {
 public:
  AbsorbedBatch(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv,
                std::span<const int32_t> rows, int64_t order)
      : step_(step),
        config_(step.config),
        ws_(step.ws),
        layer_(layer),
        kv_(kv),
        rows_(rows),
        order_(order),
        num_tokens_(static_cast<int64_t>(rows.size())),
        latent_size_(config_.num_attention_heads * config_.kv_lora_rank),
        q_size_(config_.num_attention_heads * config_.qk_head_dim()) {}

  void run() {
    make_latent_queries();
    attend();
    project_values();
  }

 private:
  void make_latent_queries() {
    ws_.linears.clear();
    for (int64_t h = 0; h < config_.num_attention_heads; ++h) {
      ws_.linears.push_back({.w = &layer_.heads[static_cast<size_t>(h)].w_uk_t,
                             .x = step_.act_row(ws_.q_rotated, h * config_.qk_head_dim(), 1),
                             .ldx = q_size_,
                             .x_rows = rows_.data(),
                             .num_tokens = num_tokens_,
                             .y = step_.act_row(ws_.q_latent, h, config_.kv_lora_rank),
                             .ldy = latent_size_,
                             .y_dtype = step_.kernels.act_dtype});
    }
    run_linears(step_, ws_.linears);
  }

  void attend() {
    const int64_t groups = (config_.num_attention_heads + kHeadGroup - 1) / kHeadGroup;
    step_.pool.parallel_for(
        num_tokens_ * groups,
        [&](int64_t begin, int64_t end, int worker_idx) {
          for (int64_t item = begin; item < end; ++item) {
            attend_group(item / groups, item % groups * kHeadGroup, ws_.scratch_of(worker_idx));
          }
        },
        1);
  }

  void attend_group(int64_t token, int64_t first_head, std::byte* scratch) {
    const int32_t row = rows_[static_cast<size_t>(token)];
    const int64_t latent = token * latent_size_ + first_head * config_.kv_lora_rank;
    const int64_t q_rope = row * q_size_ + first_head * config_.qk_head_dim() + config_.qk_nope_head_dim;
    step_.kernels.attend_absorbed({.q_latent = step_.act_row(ws_.q_latent, latent, 1),
                                   .q_latent_stride = config_.kv_lora_rank,
                                   .q_rope = step_.act_row(ws_.q_rotated, q_rope, 1),
                                   .q_rope_stride = config_.qk_head_dim(),
                                   .num_heads = std::min(kHeadGroup, config_.num_attention_heads - first_head),
                                   .kv_lora_rank = config_.kv_lora_rank,
                                   .qk_rope_head_dim = config_.qk_rope_head_dim,
                                   .scale = static_cast<float>(step_.rope.softmax_scale),
                                   .kv = &kv_,
                                   .block_table = step_.plan.block_tables[static_cast<size_t>(row)],
                                   .num_positions = step_.plan.positions[static_cast<size_t>(row)] + 1,
                                   .out = step_.act_row(ws_.attended, latent, 1),
                                   .out_stride = config_.kv_lora_rank},
                                  scratch);
  }

  void project_values() {
    const int64_t out_size = config_.num_attention_heads * config_.v_head_dim;
    ws_.linears.clear();
    for (int64_t h = 0; h < config_.num_attention_heads; ++h) {
      ws_.linears.push_back({.w = &layer_.heads[static_cast<size_t>(h)].w_uv,
                             .x = step_.act_row(ws_.attended, h, config_.kv_lora_rank),
                             .ldx = latent_size_,
                             .num_tokens = num_tokens_,
                             .y = step_.act_row(ws_.attention_out, order_ * out_size + h * config_.v_head_dim, 1),
                             .ldy = out_size,
                             .y_dtype = step_.kernels.act_dtype});
    }
    run_linears(step_, ws_.linears);
  }

  const StepContext& step_;
  const ModelConfig& config_;
  Workspace& ws_;
  const LayerWeights& layer_;
  const PagedKvView& kv_;
  const std::span<const int32_t> rows_;
  const int64_t order_;
  const int64_t num_tokens_;
  const int64_t latent_size_;
  const int64_t q_size_;
};

void attend_absorbed(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv) {
  const std::span<const int32_t> rows = step.plan.absorbed_rows;
  const int64_t num_expanded = step.num_tokens - static_cast<int64_t>(rows.size());
  for (size_t begin = 0; begin < rows.size(); begin += kAbsorbedBatchTokens) {
    const size_t count = std::min(rows.size() - begin, static_cast<size_t>(kAbsorbedBatchTokens));
    AbsorbedBatch(step, layer, kv, rows.subspan(begin, count), num_expanded + static_cast<int64_t>(begin)).run();
  }
}

}  // namespace

void run_attention_layer(const StepContext& step, const LayerWeights& layer, const PagedKvView& kv) {
  project_down(step, layer);
  write_cache(step, layer, kv);
  make_queries(step, layer);
  attend_expanded(step, layer, kv);
  attend_absorbed(step, layer, kv);

  const int64_t heads = step.config.num_attention_heads;
  const DownSource source = {.w = &layer.o,
                             .h = step.ws.attention_out,
                             .ldh = heads * step.config.v_head_dim,
                             .num_tokens = step.num_tokens,
                             .y_rows = step.plan.row_of_order.data()};
  run_down(step, {&source, 1}, num_leaves_for({heads}));
}

}  // namespace hadal
