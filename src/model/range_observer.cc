#include "model/range_observer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "comm/communicator.h"
#include "model/range_passes.h"
#include "model/weight_ranges.h"
#include "model/weights.h"
#include "quant/inc_modules.h"

namespace hadal {
namespace {

int64_t num_expanded(const StepContext& step) {
  return step.num_tokens - static_cast<int64_t>(step.plan.absorbed_rows.size());
}

}  // namespace

RangeDims range_dims(const ModelConfig& config) {
  RangeDims dims;
  dims.num_hidden_layers = config.num_hidden_layers;
  dims.n_routed_experts = config.router.n_routed_experts;
  dims.first_k_dense_replace = dims.n_routed_experts > 0 ? config.first_k_dense_replace : config.num_hidden_layers;
  dims.moe_layer_freq = config.moe_layer_freq;
  dims.hidden_size = config.hidden_size;
  dims.num_attention_heads = config.num_attention_heads;
  dims.q_lora_rank = config.q_lora_rank;
  dims.kv_lora_rank = config.kv_lora_rank;
  dims.qk_nope_head_dim = config.qk_nope_head_dim;
  dims.qk_rope_head_dim = config.qk_rope_head_dim;
  dims.v_head_dim = config.v_head_dim;
  dims.intermediate_size = config.intermediate_size;
  dims.moe_intermediate_size = config.moe_intermediate_size;
  dims.n_shared_experts = config.n_shared_experts;
  dims.dense_leaves = num_leaves_for({config.intermediate_size});
  dims.shared_leaves = config.n_shared_experts > 0 ? num_leaves_for({config.shared_intermediate_size()}) : 0;
  return dims;
}

Expected<RangeObserver> RangeObserver::create(const ModelConfig& config, std::vector<int64_t> world_sizes) {
  const RangeDims dims = range_dims(config);
  HADAL_RETURN_IF_ERROR(check_range_dims(dims));
  for (const int64_t world_size : world_sizes) {
    HADAL_RETURN_IF_ERROR(rank_share(dims, 0, world_size));
  }
  if (dims.n_routed_experts == 0) world_sizes.clear();
  return RangeObserver(dims, std::move(world_sizes));
}

RangeObserver::RangeObserver(const RangeDims& dims, std::vector<int64_t> world_sizes)
    : set_(make_range_set(dims)), world_sizes_(std::move(world_sizes)) {
  for (size_t l = 0; l < set_.layers.size(); ++l) {
    if (!dims.is_moe_layer(static_cast<int64_t>(l))) continue;
    set_.layers[l].expert_tokens.assign(static_cast<size_t>(dims.n_routed_experts), 0);
    for (const int64_t world_size : world_sizes_) {
      set_.layers[l].moe_out[world_size].assign(static_cast<size_t>(world_size), kUnmeasured);
    }
  }
}

Status RangeObserver::resume(RangeSet set) {
  if (const std::string difference = dims_difference(set.dims, set_.dims); !difference.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "ranges of another model: {}", difference);
  }
  HADAL_RETURN_IF_ERROR(check_range_set(set));
  for (size_t l = 0; l < set.layers.size(); ++l) {
    for (const int64_t world_size : world_sizes_) {
      if (set_.dims.is_moe_layer(static_cast<int64_t>(l)) && !set.layers[l].moe_out.contains(world_size)) {
        return make_error(ErrorCode::kInvalidArgument, "layer {} has no expert outputs for world size {}", l,
                          world_size);
      }
    }
  }
  set_ = std::move(set);
  return {};
}

Status RangeObserver::gather(Communicator& ranks) {
  std::vector<float> values = range_values(set_);
  const auto bytes = std::as_writable_bytes(std::span(values));
  if (ranks.rank() != 0) return ranks.send(bytes, 0);
  for (int rank = 1; rank < ranks.world_size(); ++rank) {
    HADAL_RETURN_IF_ERROR(ranks.recv(bytes, rank));
    if (Status raised = raise_range_values(set_, values); !raised) {
      return forward_error(std::move(raised), fmt::format("rank {}", rank));
    }
  }
  return {};
}

void RangeObserver::measure_weights(const StepContext& step, const LayerWeights& weights, int64_t layer_idx) {
  LayerRanges& ranges = layer(layer_idx);
  if (ranges.kv_a_weight != kUnmeasured) return;
  raise_by_rows(weights.q_a, {&ranges.q_a_weight, set_.dims.q_lora_rank > 0 ? size_t{1} : size_t{0}});
  raise_by_rows(weights.kv_a, {&ranges.kv_a_weight, 1});
  raise_by_rows(weights.q, own_part(step, ranges.q_b_weight));
  raise_by_cols(weights.o, own_part(step, ranges.o_weight));
  const std::span<float> kv_b_weight = own_part(step, ranges.kv_b_weight);
  for (size_t head = 0; head < weights.heads.size(); ++head) {
    raise_by_rows(weights.heads[head].w_uk, kv_b_weight.subspan(head, 1));
    raise_by_rows(weights.heads[head].w_uv, kv_b_weight.subspan(head, 1));
  }
  raise_by_rows(weights.mlp.gate, own_part(step, ranges.gate_up_weight));
  raise_by_rows(weights.mlp.up, own_part(step, ranges.gate_up_weight));
  raise_by_cols(weights.mlp.down, own_part(step, ranges.down_weight));
  const auto num_experts = static_cast<int64_t>(weights.experts.size());
  step.runner.for_each(StepPhase::kNorms, num_experts, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const auto expert = static_cast<size_t>(i);
      raise_by_rows(weights.experts[expert].gate, {&ranges.w13_weight[expert], 1});
      raise_by_rows(weights.experts[expert].up, {&ranges.w13_weight[expert], 1});
      raise_by_rows(weights.experts[expert].down, {&ranges.w2_weight[expert], 1});
    }
  });
}

// What does not depend on heads.
void RangeObserver::observe_rows(const StepContext& step, const PagedKvView& kv, LayerRanges& ranges) {
  const ModelConfig& config = step.config;
  const DType act = step.kernels.act_dtype;
  std::array<float, 4> slots = {ranges.attention_in, ranges.q_b_in, ranges.latent_value, ranges.latent_cache};
  raise_in_parallel(
      step, step.num_tokens, slots, worker_slots_, [&](int64_t row, std::span<float> own, int /*worker_idx*/) {
        const auto row_idx = static_cast<size_t>(row);
        const std::byte* cached = kv.row(step.plan.block_tables[row_idx], step.plan.positions[row_idx]);
        const float normed = largest(step.ws.normed.at(row), config.hidden_size, act);
        raise_range(own[0], normed);
        raise_range(own[1],
                    config.q_lora_rank > 0 ? largest(step.ws.q_a_normed.at(row), config.q_lora_rank, act) : normed);
        raise_range(own[2], largest(cached, config.kv_lora_rank, act));
        raise_range(own[3], largest(cached, kv.row_elements, act));
      });
  ranges.attention_in = slots[0];
  ranges.q_b_in = slots[1];
  ranges.latent_value = slots[2];
  ranges.latent_cache = slots[3];
}

// Inputs and output of prefill's attention, head by head.
void RangeObserver::observe_expanded(const StepContext& step, const LayerWeights& weights, const PagedKvView& kv,
                                     LayerRanges& ranges) {
  const ModelConfig& config = step.config;
  const DType act = step.kernels.act_dtype;
  const auto element_bytes = static_cast<int64_t>(dtype_size_bytes(act));
  const int64_t count = num_expanded(step), lora = config.kv_lora_rank;
  if (count == 0) return;
  float rope_max = kUnmeasured;
  make_room(latents_, count * lora * element_bytes);
  for (const ExpandedSpan& span : step.plan.expanded) {
    for (int64_t i = 0; i < span.num_tokens; ++i) {
      const std::byte* row = kv.row(span.block_table, span.first_position + i);
      raise_range(ranges.kv_b_in, largest(row, lora, act));
      std::memcpy(aligned(latents_) + (span.order + i) * lora * element_bytes, row,
                  static_cast<size_t>(lora * element_bytes));
      raise_range(rope_max, largest(row + lora * element_bytes, config.qk_rope_head_dim, act));
    }
  }
  const int64_t worker_bytes = align_up(count * std::max(config.qk_nope_head_dim, config.v_head_dim) * element_bytes);
  make_room(scratch_, worker_bytes * step.runner.shares().num_threads());
  const auto product_max = [&](const PackedMatrix& w, int worker_idx) {
    std::byte* y = aligned(scratch_) + worker_idx * worker_bytes;
    step.kernels.linear(
        {.w = &w, .x = aligned(latents_), .ldx = lora, .num_tokens = count, .y = y, .ldy = w.rows, .y_dtype = act}, 0,
        w.num_panels());
    return largest(y, count * w.rows, act);
  };
  const int64_t heads = config.num_attention_heads;
  const std::span<float> sdpa_q = own_part(step, ranges.sdpa_q), sdpa_k = own_part(step, ranges.sdpa_k);
  const std::span<float> sdpa_v = own_part(step, ranges.sdpa_v), sdpa_out = own_part(step, ranges.sdpa_out);
  step.runner.for_each(StepPhase::kNorms, heads, [&](int64_t begin, int64_t end, int worker_idx) {
    for (int64_t h = begin; h < end; ++h) {
      const auto head = static_cast<size_t>(h);
      raise_range(sdpa_k[head], std::max(rope_max, product_max(weights.heads[head].w_uk, worker_idx)));
      raise_range(sdpa_v[head], product_max(weights.heads[head].w_uv, worker_idx));
      for (int64_t order = 0; order < count; ++order) {
        const int64_t row = step.plan.row_of_order[static_cast<size_t>(order)];
        const std::byte* q = step.ws.q_rotated.at(row, h * config.qk_head_dim());
        const std::byte* out = step.ws.attention_out.at(order, h * config.v_head_dim);
        raise_range(sdpa_q[head], largest(q, config.qk_head_dim(), act));
        raise_range(sdpa_out[head], largest(out, config.v_head_dim, act));
      }
    }
  });
}

void RangeObserver::observe_attention(const StepContext& step, const LayerWeights& weights, const PagedKvView& kv,
                                      int64_t layer_idx) {
  HADAL_CHECK(kv.dtype == step.kernels.act_dtype, "calibration needs a cache in {}",
              dtype_name(step.kernels.act_dtype));
  measure_weights(step, weights, layer_idx);
  LayerRanges& ranges = layer(layer_idx);
  observe_rows(step, kv, ranges);
  observe_expanded(step, weights, kv, ranges);
  raise_range(ranges.softmax, 1);  // the first position's probability
  const int64_t v_head_dim = step.config.v_head_dim;
  const std::span<float> o_in = own_part(step, ranges.o_in);
  step.runner.for_each(StepPhase::kNorms, step.config.num_attention_heads, [&](int64_t begin, int64_t end, int) {
    for (int64_t head = begin; head < end; ++head) {
      for (int64_t order = 0; order < step.num_tokens; ++order) {
        raise_range(o_in[static_cast<size_t>(head)],
                    largest(step.ws.attention_out.at(order, head * v_head_dim), v_head_dim, step.kernels.act_dtype));
      }
    }
  });
}

void RangeObserver::observe_absorbed(const StepContext& step, int64_t layer_idx, int64_t num_items,
                                     const ArgsOfItem& args_of) {
  LayerRanges& ranges = layer(layer_idx);
  const auto heads = static_cast<size_t>(step.config.num_attention_heads);
  const int64_t num_groups = (static_cast<int64_t>(heads) + kHeadGroup - 1) / kHeadGroup;
  const int64_t lora = step.config.kv_lora_rank;
  const int64_t out_bytes =
      align_up(kHeadGroup * lora * static_cast<int64_t>(dtype_size_bytes(step.kernels.act_dtype)));
  int64_t kernel_bytes = 0;
  for (int64_t item = 0; item < num_items; ++item) {
    kernel_bytes = std::max(kernel_bytes, step.kernels.quant_absorbed_scratch_bytes({.base = args_of(item)}));
  }
  const int64_t worker_bytes = out_bytes + align_up(kernel_bytes);
  make_room(scratch_, worker_bytes * step.runner.shares().num_threads());
  std::vector<float> slots(3 * heads, kUnmeasured);
  raise_in_parallel(step, num_items, slots, worker_slots_, [&](int64_t item, std::span<float> own, int worker_idx) {
    std::byte* own_scratch = aligned(scratch_) + worker_idx * worker_bytes;
    std::array<AbsorbedMagnitudes, kMaxAbsorbedHeads> seen{};
    QuantAbsorbedArgs args = {.base = args_of(item), .magnitudes = seen.data()};
    args.base.out = own_scratch;
    args.base.out_stride = lora;
    step.kernels.attend_quant_absorbed(args, own_scratch + out_bytes);
    const auto first_head = static_cast<size_t>(item % num_groups * kHeadGroup);
    for (size_t h = 0; h < static_cast<size_t>(args.base.num_heads); ++h) {
      raise_range(own[first_head + h], seen[h].query);
      raise_range(own[heads + first_head + h], seen[h].batch2block);
      raise_range(own[2 * heads + first_head + h], seen[h].block2batch);
    }
  });
  const std::span<float> absorbed_q = own_part(step, ranges.absorbed_q);
  const std::span<float> batch2block = own_part(step, ranges.batch2block);
  const std::span<float> block2batch = own_part(step, ranges.block2batch);
  for (size_t head = 0; head < heads; ++head) {
    raise_range(absorbed_q[head], slots[head]);
    raise_range(batch2block[head], slots[heads + head]);
    raise_range(block2batch[head], slots[2 * heads + head]);
  }
}

}  // namespace hadal
