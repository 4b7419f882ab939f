#include "model/deepseek_v3.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>
#include <utility>

#include "base/check.h"
#include "comm/communicator.h"
#include "model/layers.h"
#include "model/range_observer.h"
#include "tensor/bf16.h"
#include "tensor/fp8.h"

namespace hadal {
namespace {

int64_t kv_row_bytes(const ModelConfig& config, DType kv_dtype) {
  return (config.kv_lora_rank + config.qk_rope_head_dim) * static_cast<int64_t>(dtype_size_bytes(kv_dtype));
}

// value rounded to an element of a cache row.
void store(float value, DType dtype, std::byte* row, int64_t i) {
  if (dtype == DType::kF8E4M3) {
    row[i] = std::byte{f32_to_e4m3(value)};
  } else if (dtype == DType::kBF16) {
    const bf16_t rounded = f32_to_bf16(value);
    std::memcpy(row + i * 2, &rounded, sizeof(rounded));
  } else {
    std::memcpy(row + i * 4, &value, sizeof(value));
  }
}

}  // namespace

int64_t kv_bytes_per_token(const ModelConfig& config, DType kv_dtype) {
  return config.num_hidden_layers * kv_row_bytes(config, kv_dtype);
}

DeepseekV3Model::DeepseekV3Model(ModelConfig config, ModelWeights weights, const KernelTable& kernels, DType kv_dtype,
                                 std::unique_ptr<ThreadPool> pool, NodeShares shares, ForwardObserver observer,
                                 RangeObserver* ranges, const RankSlice& slice)
    : whole_config_(std::move(config)),
      layout_(rank_layout(whole_config_, slice)),
      config_(rank_config(whole_config_, slice)),
      weights_(std::move(weights)),
      kernels_(kernels),
      kv_dtype_(kv_dtype),
      pool_(std::move(pool)),
      runner_(*pool_, std::move(shares)),
      head_(whole_config_, layout_, kernels_.isa, pool_->num_threads()),
      observer_(std::move(observer)),
      ranges_(ranges),
      rope_(make_rope_parameters(config_)) {
  HADAL_CHECK(kv_dtype == DType::kF8E4M3 || kv_dtype == kernels.act_dtype, "no cache of type {} with {} kernels",
              dtype_name(kv_dtype), kernels.name);
}

Status DeepseekV3Model::allocate_kv(int64_t num_blocks, int64_t block_size, int64_t max_tokens_per_step) {
  constexpr int64_t kMaxTokens = int64_t{1} << 31;
  if (num_blocks < 1 || block_size < 1 || max_tokens_per_step < 1 || num_blocks > kMaxTokens / block_size ||
      max_tokens_per_step > kMaxTokens) {
    return make_error(ErrorCode::kInvalidArgument,
                      "KV cache of {} blocks of {} tokens, {} tokens per step: out of range", num_blocks, block_size,
                      max_tokens_per_step);
  }
  const int64_t row_bytes = kv_row_bytes(config_, kv_dtype_);
  const int64_t layer_bytes = num_blocks * block_size * row_bytes;
  num_blocks_ = num_blocks;
  block_size_ = block_size;
  HADAL_ASSIGN_OR_RETURN(
      kv_memory_,
      AlignedBuffer::create(static_cast<uint64_t>(layer_bytes * config_.num_hidden_layers), "the KV cache"));
  HADAL_ASSIGN_OR_RETURN(main_, make_state(limits_for(max_tokens_per_step)));
  kv_layers_.clear();
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
    kv_layers_.push_back({.dtype = kv_dtype_,
                          .base = kv_memory_.data() + layer * layer_bytes,
                          .block_stride_bytes = block_size * row_bytes,
                          .block_size = block_size,
                          .row_elements = config_.kv_lora_rank + config_.qk_rope_head_dim,
                          .row_bytes = row_bytes});
  }
  return {};
}

WorkspaceLimits DeepseekV3Model::limits_for(int64_t max_tokens) const {
  return {.max_tokens = max_tokens,
          .max_positions = std::min(num_blocks_ * block_size_, config_.max_position_embeddings),
          .num_threads = pool_->num_threads(),
          .kv_dtype = kv_dtype_,
          .quantises_inputs = !weights_.numerics.layers.empty(),
          .slice = layout_.slice};
}

Expected<DeepseekV3Model::StepState> DeepseekV3Model::make_state(const WorkspaceLimits& limits) const {
  StepState state;
  HADAL_ASSIGN_OR_RETURN(state.ws, make_workspace(whole_config_, kernels_, limits, runner_.shares()));
  const auto tokens = static_cast<size_t>(limits.max_tokens);
  state.plan.positions.reserve(tokens);
  state.plan.block_tables.reserve(tokens);
  state.plan.expanded.reserve(tokens);
  state.plan.absorbed_rows.reserve(tokens);
  state.plan.row_of_order.reserve(tokens);
  state.max_tokens = limits.max_tokens;
  return state;
}

void DeepseekV3Model::fill_kv(uint64_t seed) {
  const int64_t num_rows = config_.num_hidden_layers * num_blocks_ * block_size_;
  const int64_t row_elements = config_.kv_lora_rank + config_.qk_rope_head_dim;
  const int64_t row_bytes = kv_row_bytes(config_, kv_dtype_);
  pool_->parallel_for(num_rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      uint64_t state = seed + static_cast<uint64_t>(row) * 0x9E3779B97F4A7C15u;
      std::byte* to = kv_memory_.data() + row * row_bytes;
      for (int64_t i = 0; i < row_elements; ++i) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const float value = static_cast<float>(static_cast<int64_t>(state) >> 33) * 0x1p-29F;  // uniform in +-2
        store(value, kv_dtype_, to, i);
      }
    }
  });
}

Status DeepseekV3Model::check_input(const StepInput& input, int64_t max_tokens) const {
  const auto num_tokens = static_cast<int64_t>(input.token_ids.size());
  if (num_tokens < 1 || num_tokens > max_tokens) {
    return make_error(ErrorCode::kInvalidArgument, "step of {} tokens: allocated are 1 to {}", num_tokens, max_tokens);
  }
  for (const int32_t id : input.token_ids) {
    if (id < 0 || id >= config_.vocab_size) {
      return make_error(ErrorCode::kInvalidArgument, "token id {}: the vocabulary has {}", id, config_.vocab_size);
    }
  }
  int64_t next_row = 0;
  for (const SequenceSpan& span : input.sequences) {
    const int64_t num_positions = span.first_position + span.num_tokens;
    if (span.token_begin != next_row || span.num_tokens < 1 || span.first_position < 0 ||
        num_positions > config_.max_position_embeddings) {
      return make_error(ErrorCode::kInvalidArgument,
                        "span of rows {} + {} at position {}: rows must be contiguous and "
                        "positions below {}",
                        span.token_begin, span.num_tokens, span.first_position, config_.max_position_embeddings);
    }
    next_row += span.num_tokens;
    const auto num_blocks = static_cast<size_t>((num_positions + block_size_ - 1) / block_size_);
    if (span.block_table.size() < num_blocks) {
      return make_error(ErrorCode::kInvalidArgument, "block table of {} blocks: {} positions need {}",
                        span.block_table.size(), num_positions, num_blocks);
    }
    for (const int32_t block : span.block_table.first(num_blocks)) {
      if (block < 0 || block >= num_blocks_) {
        return make_error(ErrorCode::kInvalidArgument, "block id {}: allocated are {}", block, num_blocks_);
      }
    }
  }
  if (next_row != num_tokens) {
    return make_error(ErrorCode::kInvalidArgument, "sequences cover {} of {} rows", next_row, num_tokens);
  }
  for (const int32_t row : input.logit_rows) {
    if (row < 0 || row >= num_tokens) {
      return make_error(ErrorCode::kInvalidArgument, "logit row {} of {}", row, num_tokens);
    }
  }
  if (!input.logit_wants.empty() && input.logit_wants.size() != input.logit_rows.size()) {
    return make_error(ErrorCode::kInvalidArgument, "wants of {} rows of {}", input.logit_wants.size(),
                      input.logit_rows.size());
  }
  for (const LogitWant& want : input.logit_wants) {
    const bool is_sane = want.num_valid >= 0 && want.num_valid <= config_.vocab_size && want.num_best >= 0;
    const auto is_bounded = [](float value) { return value >= 0 && std::isfinite(value); };
    if (!is_sane || !is_bounded(want.depth) || !is_bounded(want.exp_scale) || !is_bounded(want.temperature) ||
        !(want.nucleus >= 0 && want.nucleus < 1) || (want.nucleus > 0 && want.exp_scale == 0)) {
      return make_error(ErrorCode::kInvalidArgument, "the {} best of {} logits, to {} or {} of the mass, are wanted",
                        want.num_best, want.num_valid, want.depth, want.nucleus);
    }
  }
  if (input.logit_rows.size() > input.token_ids.size()) {
    return make_error(ErrorCode::kInvalidArgument, "{} logit rows of {} rows", input.logit_rows.size(), num_tokens);
  }
  return {};
}

void DeepseekV3Model::plan_attention(const StepInput& input, AttentionPlan& plan) const {
  plan.positions.clear();
  plan.block_tables.clear();
  plan.expanded.clear();
  plan.absorbed_rows.clear();
  plan.row_of_order.clear();
  for (const SequenceSpan& span : input.sequences) {
    for (int64_t i = 0; i < span.num_tokens; ++i) {
      const int64_t row = span.token_begin + i, position = span.first_position + i;
      plan.positions.push_back(position);
      plan.block_tables.push_back(span.block_table.data());
      if (position >= span.expanded_end) {
        plan.absorbed_rows.push_back(static_cast<int32_t>(row));
        continue;
      }
      if (i == 0) {
        plan.expanded.push_back({.row = row,
                                 .order = static_cast<int64_t>(plan.row_of_order.size()),
                                 .first_position = position,
                                 .block_table = span.block_table.data()});
      }
      ++plan.expanded.back().num_tokens;
      plan.row_of_order.push_back(static_cast<int32_t>(row));
    }
  }
  plan.row_of_order.insert(plan.row_of_order.end(), plan.absorbed_rows.begin(), plan.absorbed_rows.end());
}

void DeepseekV3Model::embed(const StepInput& input, StepState& state) {
  const int64_t hidden = config_.hidden_size, half_rope = config_.qk_rope_head_dim / 2;
  const auto* table = reinterpret_cast<const bf16_t*>(weights_.embed_tokens);
  const Workspace& ws = state.ws;
  const auto num_tokens = static_cast<int64_t>(input.token_ids.size());
  runner_.for_each(StepPhase::kEmbed, num_tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const auto row_idx = static_cast<size_t>(row);
      const bf16_t* from = table + input.token_ids[row_idx] * hidden;
      float* x = ws.x + row * hidden;
      for (int64_t i = 0; i < hidden; ++i) x[i] = bf16_to_f32(from[i]);
      rope_cos_sin(rope_, state.plan.positions[row_idx], ws.cos + row * half_rope, ws.sin + row * half_rope);
    }
  });
}

void DeepseekV3Model::set_communicator(Communicator* communicator) {
  HADAL_CHECK(communicator == nullptr || (communicator->rank() == layout_.slice.rank &&
                                          communicator->world_size() == layout_.slice.world_size),
              "a communicator of another group");
  communicator_ = communicator;
  equal_workers_.reset();
}

Status DeepseekV3Model::check_ranks() const {
  if (layout_.slice.world_size == 1 || communicator_ != nullptr) return {};
  return make_error(ErrorCode::kUnavailable, "rank {} of {} is not connected to the others", layout_.slice.rank,
                    layout_.slice.world_size);
}

Status DeepseekV3Model::gather_ranges() {
  if (layout_.slice.world_size == 1) return {};
  HADAL_RETURN_IF_ERROR(check_ranks());
  if (ranges_ == nullptr) return make_error(ErrorCode::kInternal, "rank {} measures no ranges", layout_.slice.rank);
  return ranges_->gather(*communicator_);
}

// ws.normed is free by now: rows are gathered as they are normalised.
void DeepseekV3Model::normalise_rows(const StepContext& step, std::span<const int32_t> rows) {
  const int64_t hidden = config_.hidden_size;
  runner_.for_each(StepPhase::kHead, static_cast<int64_t>(rows.size()), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      kernels_.rms_norm({.x = step.ws.x + rows[static_cast<size_t>(i)] * hidden,
                         .weight = weights_.final_norm,
                         .dim = hidden,
                         .eps = config_.rms_norm_eps,
                         .out = step.ws.normed.at(i)});
    }
  });
}

// Of this rank's share of the vocabulary, for rows of ws.normed.
void DeepseekV3Model::compute_logits(const StepContext& step, const IndexRange& rows, float* logits, int64_t ldy) {
  const LinearArgs head = {.w = &weights_.lm_head,
                           .x = step.ws.normed.at(rows.begin),
                           .ldx = step.ws.normed.stride,
                           .num_tokens = rows.size(),
                           .y = logits,
                           .ldy = ldy,
                           .round_to_bf16 = weights_.numerics.bf16_results};
  run_linears(step, StepPhase::kHead, {&head, 1});
}

void DeepseekV3Model::observe_residual(const StepContext& step, int64_t layer) const {
  if (observer_) observer_("residual", layer, {step.ws.x, DType::kF32, {step.num_tokens, config_.hidden_size}});
}

Status DeepseekV3Model::begin_step(const StepInput& input, StepState& state) {
  HADAL_RETURN_IF_ERROR(check_input(input, state.max_tokens));
  HADAL_RETURN_IF_ERROR(check_ranks());
  if (const auto caller = std::this_thread::get_id(); caller != worker_0_) {
    runner_.shares().bind_current_thread(runner_.shares().node_of_worker[0]);
    worker_0_ = caller;
  }
  plan_attention(input, state.plan);
  embed(input, state);
  return {};
}

StepContext DeepseekV3Model::context_of(StepState& state, const StepInput& input) {
  return {.config = config_,
          .kernels = kernels_,
          .rope = rope_,
          .runner = runner_,
          .ws = state.ws,
          .plan = state.plan,
          .numerics = weights_.numerics,
          .observer = observer_,
          .num_tokens = static_cast<int64_t>(input.token_ids.size()),
          .ranges = ranges_,
          .layout = layout_,
          .communicator = communicator_};
}

Status DeepseekV3Model::run_layer(const StepContext& step, int64_t layer_idx) {
  const LayerWeights& layer = weights_.layers[static_cast<size_t>(layer_idx)];
  add_and_normalise(step, layer.input_norm, layer_idx > 0);
  if (layer_idx > 0) observe_residual(step, layer_idx - 1);
  HADAL_RETURN_IF_ERROR(run_attention_layer(step, layer, kv_layers_[static_cast<size_t>(layer_idx)], layer_idx));
  add_and_normalise(step, layer.post_attention_norm, true);
  return run_mlp_layer(step, layer, layer_idx);
}

Status DeepseekV3Model::run_head(const StepContext& step, const StepInput& input, float* logits) {
  add_and_normalise(step, weights_.final_norm, true);
  observe_residual(step, config_.num_hidden_layers - 1);
  const auto num_rows = static_cast<int64_t>(input.logit_rows.size());
  head_.begin(num_rows);
  if (num_rows == 0) return {};
  normalise_rows(step, input.logit_rows);
  const RankSlice& slice = layout_.slice;
  if (slice.world_size == 1) {
    compute_logits(step, {0, num_rows}, logits, config_.vocab_size);
    return {};
  }
  for (int64_t row = 0; row < num_rows; row += kHeadBatchRows) {
    const IndexRange rows = {row, std::min(row + kHeadBatchRows, num_rows)};
    if (slice.rank == 0) {
      compute_logits(step, rows, logits + row * config_.vocab_size, config_.vocab_size);
    } else if (layout_.vocab.size() > 0) {
      compute_logits(step, rows, step.ws.head_logits, layout_.vocab.size());
    }
    HADAL_RETURN_IF_ERROR(head_.gather(step, rows, input.logit_wants, logits));
  }
  return {};
}

Status DeepseekV3Model::forward(const StepInput& input, float* logits) {
  const auto started = std::chrono::steady_clock::now();
  StepState& state = open_ ? between_ : main_;
  HADAL_RETURN_IF_ERROR(begin_step(input, state));
  if (open_ && !state.plan.expanded.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "tokens in the expanded form while a step is open");
  }
  const StepContext step = context_of(state, input);
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) HADAL_RETURN_IF_ERROR(run_layer(step, i));
  HADAL_RETURN_IF_ERROR(run_head(step, input, logits));
  StepProfile& profile = runner_.profile();
  profile.wall_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  ++profile.num_steps;
  return {};
}

}  // namespace hadal
