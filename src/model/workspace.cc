#include <algorithm>
#include <array>

#include "model/act_quant.h"
#include "model/step_context.h"

namespace hadal {
namespace {

constexpr int64_t kAlignment = 64;
int64_t align(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

AbsorbedAttentionArgs largest_absorbed(const ModelConfig& config, const WorkspaceLimits& limits,
                                       const PagedKvView& kv) {
  return {.num_heads = std::min(kHeadGroup, config.num_attention_heads),
          .kv_lora_rank = config.kv_lora_rank,
          .qk_rope_head_dim = config.qk_rope_head_dim,
          .kv = &kv,
          .num_positions = limits.max_positions};
}

// The kernels' need for the largest calls that the limits allow.
int64_t scratch_bytes(const ModelConfig& config, const KernelTable& kernels, const WorkspaceLimits& limits,
                      const PagedKvView& kv) {
  const int64_t queries = std::min(limits.max_tokens, limits.max_positions);
  const ExpandedAttentionArgs expanded = {.num_queries = queries,
                                          .first_position = limits.max_positions - queries,
                                          .kv_lora_rank = config.kv_lora_rank,
                                          .qk_nope_head_dim = config.qk_nope_head_dim,
                                          .qk_rope_head_dim = config.qk_rope_head_dim,
                                          .v_head_dim = config.v_head_dim,
                                          .kv = &kv};
  const PackedMatrix matrix = {.rows = config.hidden_size, .cols = kMaxLeaves};
  const std::array<DownSource, 1> source = {DownSource{.w = &matrix, .num_tokens = limits.max_tokens}};
  const DownArgs down = {.sources = source, .num_leaves = kMaxLeaves, .num_tokens = limits.max_tokens};
  const AbsorbedAttentionArgs absorbed = largest_absorbed(config, limits, kv);
  int64_t most = std::max(absorbed_scratch_bytes(kernels, absorbed), kernels.down_scratch_bytes(down));
  if (!limits.absorbed_only) most = std::max(most, kernels.expanded_scratch_bytes(expanded));
  if (limits.quantises_inputs) {
    most = std::max(most, kernels.quant_absorbed_scratch_bytes({.base = absorbed}));
    if (!limits.absorbed_only) {
      most = std::max(most, kernels.quant_expanded_scratch_bytes({.base = expanded, .sdpa = SdpaScales{}}));
    }
  }
  return align(most);
}

class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <typename T>
  void take(T*& pointer, int64_t count, int64_t element_bytes = sizeof(T)) {
    if (base_ != nullptr) pointer = reinterpret_cast<T*>(base_ + used_);
    used_ += align(count * element_bytes);
  }
  void take_rows(ActRows& rows, int64_t count, int64_t width, int64_t element_bytes) {
    constexpr int64_t kSetBytes = 4096, kLineBytes = 64;
    rows.element_bytes = element_bytes;
    rows.stride = width + (width * element_bytes % kSetBytes == 0 ? kLineBytes / element_bytes : 0);
    take(rows.base, count * rows.stride, element_bytes);
  }
  int64_t used_bytes() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

void carve_quantised(const ModelConfig& config, int64_t shared_width, int64_t tokens, int64_t act, Carver& carver,
                     Workspace& ws) {
  const int64_t hidden = config.hidden_size;
  const int64_t widest = std::max(
      {config.q_lora_rank, config.num_attention_heads * config.v_head_dim, config.intermediate_size, shared_width});
  for (int slot = 0; slot < 2; ++slot) {
    carver.take_rows(ws.quantised[slot], tokens, hidden, act);
    carver.take(ws.quantised_scales[slot], tokens * scales_per_row(hidden));
  }
  carver.take(ws.row_scales, tokens * scales_per_row(widest));
  carver.take(ws.expert_scales,
              tokens * config.router.num_experts_per_tok * scales_per_row(config.moe_intermediate_size));
}

// Sets the pointers of `ws` into `base`, or only counts when base is null.
int64_t carve(const ModelConfig& whole, const KernelTable& kernels, const WorkspaceLimits& limits, std::byte* base,
              Workspace& ws) {
  const ModelConfig config = rank_config(whole, limits.slice);
  const RankLayout layout = rank_layout(whole, limits.slice);
  const int64_t tokens = limits.max_tokens, heads = config.num_attention_heads;
  const int64_t act = static_cast<int64_t>(dtype_size_bytes(kernels.act_dtype));
  const int64_t absorbed = std::min(tokens, kAbsorbedBatchTokens);
  const int64_t top_k = config.router.num_experts_per_tok;
  const int64_t q_size = heads * config.qk_head_dim();
  Carver carver(base);
  carver.take(ws.x, tokens * config.hidden_size);
  carver.take(ws.delta, tokens * config.hidden_size);
  carver.take_rows(ws.normed, tokens, config.hidden_size, act);
  carver.take(ws.cos, tokens * config.qk_rope_head_dim / 2);
  carver.take(ws.sin, tokens * config.qk_rope_head_dim / 2);
  carver.take(ws.q_a, tokens * config.q_lora_rank);
  carver.take_rows(ws.q_a_normed, tokens, config.q_lora_rank, act);
  carver.take(ws.kv, tokens * (config.kv_lora_rank + config.qk_rope_head_dim));
  carver.take(ws.q, tokens * q_size);
  carver.take_rows(ws.q_rotated, tokens, q_size, act);
  carver.take_rows(ws.q_latent, absorbed, heads * config.kv_lora_rank, act);
  carver.take_rows(ws.attended, absorbed, heads * config.kv_lora_rank, act);
  carver.take_rows(ws.attention_out, tokens, heads * config.v_head_dim, act);
  carver.take(ws.router_logits, tokens * config.router.n_routed_experts);
  carver.take(ws.expert_ids, tokens * top_k);
  carver.take(ws.expert_weights, tokens * top_k);
  carver.take(ws.expert_rows, tokens * top_k);
  carver.take(ws.grouped_weights, tokens * top_k);
  carver.take_rows(ws.expert_h, tokens * top_k, config.moe_intermediate_size, act);
  carver.take_rows(ws.mlp_h, tokens, std::max(config.intermediate_size, layout.shared_width), act);
  if (limits.quantises_inputs) carve_quantised(config, layout.shared_width, tokens, act, carver, ws);
  if (limits.slice.world_size > 1) {
    carver.take(ws.head_logits,
                std::min(tokens, kHeadBatchRows) * vocab_share(whole, limits.slice.world_size, 0).size());
  }
  const PagedKvView kv = {.dtype = limits.kv_dtype};
  ws.scratch_bytes = scratch_bytes(config, kernels, limits, kv);
  carver.take(ws.scratch, ws.scratch_bytes * limits.num_threads);
  ws.partial_bytes = align(kernels.absorbed_partial_bytes(largest_absorbed(config, limits, kv)));
  // By token: a state for each group of heads, and one more. In waves, of fewer than 2 * threads tokens: max(2, 4 *
  // threads / items, rounded up) slots an item.
  const int64_t groups = (heads + kHeadGroup - 1) / kHeadGroup;
  ws.partials_per_worker = std::max<int64_t>(6, 4 * groups);
  carver.take(ws.partials, ws.partial_bytes * ws.partials_per_worker * limits.num_threads);
  return carver.used_bytes();
}

}  // namespace

uint64_t workspace_bytes(const ModelConfig& config, const KernelTable& kernels, const WorkspaceLimits& limits) {
  Workspace counted;
  return static_cast<uint64_t>(carve(config, kernels, limits, nullptr, counted));
}

Expected<Workspace> make_workspace(const ModelConfig& config, const KernelTable& kernels, const WorkspaceLimits& limits,
                                   const NodeShares& shares) {
  Workspace ws;
  HADAL_ASSIGN_OR_RETURN(ws.memory,
                         AlignedBuffer::create(workspace_bytes(config, kernels, limits), "the activation workspace"));
  carve(config, kernels, limits, ws.memory.data(), ws);
  const size_t experts = static_cast<size_t>(config.router.n_routed_experts);
  ws.expert_offsets.resize(experts + 1);
  ws.gate_ups.reserve(experts + 1);
  ws.down_sources.reserve(experts + 1);
  const size_t linears =
      static_cast<size_t>(std::max<int64_t>(config.num_attention_heads / limits.slice.world_size, 2));
  ws.linears.reserve(linears);
  ws.work.reserve(std::max({experts + 1, linears, static_cast<size_t>(limits.num_threads)}), shares);
  return ws;
}

}  // namespace hadal
