// What the layers of one forward step share. Internal to model/.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/check.h"
#include "kernels/kernels.h"
#include "model/config.h"
#include "model/forward_observer.h"
#include "model/memory_needs.h"
#include "model/rank_layout.h"
#include "model/rope.h"
#include "model/step_runner.h"
#include "quant/numerics_plan.h"

namespace hadal {

// Absorbed-form tokens are run in batches of this many: their latent queries are heads x kv_lora_rank wide.
inline constexpr int64_t kAbsorbedBatchTokens = 256;
// Rows of logits that ranks exchange at a time: a vocabulary is large.
inline constexpr int64_t kHeadBatchRows = 64;
// Heads that one attention work item serves.
inline constexpr int64_t kHeadGroup = kMaxAbsorbedHeads;

// Rows of activations in the kernel table's act dtype. Rows a multiple of 4 KiB apart would share cache sets: they are
// padded.
struct ActRows {
  std::byte* base = nullptr;
  int64_t stride = 0;  // elements from row to row
  int64_t element_bytes = 0;

  std::byte* at(int64_t row, int64_t col = 0) const { return base + (row * stride + col) * element_bytes; }
};

// Activation memory of a step, made once. Heads and widths are those of the rank.
struct Workspace {
  float* x = nullptr;                // [tokens, hidden] residual stream
  float* delta = nullptr;            // [tokens, hidden] output of the last block, not yet added to x
  ActRows normed;                    // [tokens, hidden]
  float* cos = nullptr;              // [tokens, qk_rope / 2]
  float* sin = nullptr;              // [tokens, qk_rope / 2]
  float* q_a = nullptr;              // [tokens, q_lora_rank]
  ActRows q_a_normed;                // [tokens, q_lora_rank]
  float* kv = nullptr;               // [tokens, kv_lora_rank + qk_rope]
  float* q = nullptr;                // [tokens, heads, qk_head_dim]
  ActRows q_rotated;                 // same shape
  ActRows q_latent;                  // [absorbed batch, heads, kv_lora_rank]
  ActRows attended;                  // [absorbed batch, heads, kv_lora_rank]
  ActRows attention_out;             // [tokens in attention order, heads, v_head_dim]
  float* router_logits = nullptr;    // [tokens, n_routed_experts]
  int32_t* expert_ids = nullptr;     // [tokens, num_experts_per_tok]
  float* expert_weights = nullptr;   // [tokens, num_experts_per_tok]
  int32_t* expert_rows = nullptr;    // [tokens * num_experts_per_tok] token rows, grouped by expert
  float* grouped_weights = nullptr;  // the same order
  ActRows expert_h;                  // [tokens * num_experts_per_tok, moe_intermediate]
  ActRows mlp_h;                     // [tokens, widest dense or shared MLP]
  // Only where the numerics plan quantises inputs (act_quant.h): copies of `normed`, and scales of rows that were
  // quantised in place, the widest that there are.
  ActRows quantised[2];            // [tokens, hidden]
  float* quantised_scales[2]{};    // [tokens, scales_per_row(hidden)]
  float* row_scales = nullptr;     // [tokens, scales_per_row(widest)] of q_a_normed, attention_out, mlp_h
  float* expert_scales = nullptr;  // [tokens * num_experts_per_tok, scales_per_row(moe_intermediate)]
  float* head_logits = nullptr;    // with other ranks: [min(tokens, kHeadBatchRows), largest share of the vocabulary]
  std::byte* scratch = nullptr;    // [num_threads, scratch_bytes] of the kernels
  int64_t scratch_bytes = 0;       // per worker, a multiple of 64
  std::byte* partials = nullptr;   // [num_threads, partials_per_worker, partial_bytes] of absorbed attention
  int64_t partial_bytes = 0, partials_per_worker = 0;

  // Work lists, sized once and reused.
  std::vector<int64_t> expert_offsets;  // [n_routed_experts + 1] into expert_rows
  std::vector<LinearArgs> linears;
  std::vector<GateUpArgs> gate_ups;
  std::vector<DownSource> down_sources;
  WorkList work;

  AlignedBuffer memory;

  std::byte* scratch_of(int worker_idx) const { return scratch + worker_idx * scratch_bytes; }
  std::byte* partials_of(int worker_idx) const { return partials + worker_idx * partials_per_worker * partial_bytes; }
};

// Errors: kResourceExhausted.
Expected<Workspace> make_workspace(const ModelConfig& config, const KernelTable& kernels, const WorkspaceLimits& limits,
                                   const NodeShares& shares);

// Consecutive rows of one sequence that use the expanded form.
struct ExpandedSpan {
  int64_t row = 0;    // first token row
  int64_t order = 0;  // first row of attention_out
  int64_t num_tokens = 0;
  int64_t first_position = 0;
  const int32_t* block_table = nullptr;
};

// How the tokens of a step attend. The same for every layer. Attention order: expanded spans first, then absorbed
// tokens.
struct AttentionPlan {
  std::vector<int64_t> positions;            // [tokens]
  std::vector<const int32_t*> block_tables;  // [tokens]
  std::vector<ExpandedSpan> expanded;
  std::vector<int32_t> absorbed_rows;
  std::vector<int32_t> row_of_order;  // [tokens] token row of each row of attention_out
};

class Communicator;
class RangeObserver;

struct StepContext {
  const ModelConfig& config;  // of the rank: rank_config()
  const KernelTable& kernels;
  const RopeParameters& rope;
  StepRunner& runner;
  Workspace& ws;
  const AttentionPlan& plan;
  const NumericsPlan& numerics;
  const ForwardObserver& observer;
  int64_t num_tokens = 0;
  RangeObserver* ranges = nullptr;  // calibration only
  RankLayout layout;
  Communicator* communicator = nullptr;  // of layout.slice.world_size ranks; unused where that is 1
};

// x += delta (unless first), then normed = RMSNorm(x), for all tokens.
void add_and_normalise(const StepContext& step, const float* norm_weight, bool add_delta);

// Runs linears that are independent of each other over all their panels. `by_item`: item i of n belongs to the NUMA
// node that holds the share of unit i (heads); otherwise every matrix is cut over the nodes.
void run_linears(const StepContext& step, StepPhase phase, std::span<const LinearArgs> linears, bool by_item = false);
void run_gate_ups(const StepContext& step, StepPhase phase, std::span<const GateUpArgs> gate_ups);
// Overwrites ws.delta for all tokens with the sum over all ranks; num_leaves: of this one. No sources: it adds nothing.
// Errors: the communicator's.
Status run_down(const StepContext& step, StepPhase phase, std::span<const DownSource> sources, int64_t num_leaves);

// Runs and books one collective of so many bytes.
template <typename Collective>
Status communicate(const StepContext& step, int64_t num_bytes, Collective&& collective) {
  const auto started = std::chrono::steady_clock::now();
  Status status = collective(*step.communicator);
  PhaseCost& cost = step.runner.profile().of(StepPhase::kCommunication);
  cost.wall_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  cost.comm_bytes += static_cast<double>(num_bytes);
  ++cost.num_collectives;
  return status;
}

}  // namespace hadal
