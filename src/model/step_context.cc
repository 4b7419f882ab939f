#include "model/step_context.h"

#include <algorithm>

#include "comm/communicator.h"
#include "tensor/bf16.h"

namespace hadal {
namespace {

// Books that `num_tokens` tokens meet a matrix, whose bytes are read once.
void count_matrix(const StepContext& step, StepPhase phase, const PackedMatrix& w, int64_t num_tokens) {
  if (num_tokens == 0) return;
  PhaseCost& cost = step.runner.profile().of(phase);
  cost.weight_bytes += static_cast<double>(w.rows * w.cols) * dtype_size_bytes(w.dtype) +
                       static_cast<double>(w.num_scales()) * sizeof(float);
  cost.flops += 2.0 * static_cast<double>(w.rows) * static_cast<double>(w.cols) * static_cast<double>(num_tokens);
}

}  // namespace

void add_and_normalise(const StepContext& step, const float* norm_weight, bool add_delta) {
  const int64_t hidden = step.config.hidden_size;
  step.runner.for_each(StepPhase::kNorms, step.num_tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* x = step.ws.x + row * hidden;
      if (add_delta) {
        const float* delta = step.ws.delta + row * hidden;
        if (step.numerics.bf16_results) {
          for (int64_t i = 0; i < hidden; ++i) x[i] = round_to_bf16(x[i] + round_to_bf16(delta[i]));
        } else {
          for (int64_t i = 0; i < hidden; ++i) x[i] += delta[i];
        }
      }
      step.kernels.rms_norm({.x = x,
                             .weight = norm_weight,
                             .dim = hidden,
                             .eps = step.config.rms_norm_eps,
                             .out = step.ws.normed.at(row)});
    }
  });
}

void run_linears(const StepContext& step, StepPhase phase, std::span<const LinearArgs> linears, bool by_item) {
  WorkList& work = step.ws.work;
  const NodeShares& shares = step.runner.shares();
  work.clear();
  for (size_t i = 0; i < linears.size(); ++i) {
    const PackedMatrix& w = *linears[i].w;
    if (by_item) {
      const auto num_items = static_cast<int64_t>(linears.size());
      work.add_on_node(w.num_panels(), shares.node_of(static_cast<int64_t>(i), num_items));
    } else {
      work.add(w.num_panels(), shares);
    }
    count_matrix(step, phase, w, linears[i].num_tokens);
  }
  step.runner.run(phase, work,
                  [&](size_t i, int64_t begin, int64_t end, int) { step.kernels.linear(linears[i], begin, end); });
}

void run_gate_ups(const StepContext& step, StepPhase phase, std::span<const GateUpArgs> gate_ups) {
  WorkList& work = step.ws.work;
  work.clear();
  for (const GateUpArgs& args : gate_ups) {
    work.add(args.gate->num_panels(), step.runner.shares());
    count_matrix(step, phase, *args.gate, args.num_tokens);
    count_matrix(step, phase, *args.up, args.num_tokens);
  }
  step.runner.run(phase, work,
                  [&](size_t i, int64_t begin, int64_t end, int) { step.kernels.gate_up(gate_ups[i], begin, end); });
}

namespace {

// The ranks' leaves are whole subtrees: joining their sums as a tree completes that of one rank.
Status sum_over_ranks(const StepContext& step) {
  if (step.layout.slice.world_size == 1) return {};
  const int64_t count = step.num_tokens * step.config.hidden_size;
  return communicate(step, count * static_cast<int64_t>(sizeof(float)),
                     [&](Communicator& ranks) { return ranks.all_reduce(step.ws.delta, count, DType::kF32); });
}

}  // namespace

Status run_down(const StepContext& step, StepPhase phase, std::span<const DownSource> sources, int64_t num_leaves) {
  if (sources.empty()) {  // experts of other ranks only
    std::fill_n(step.ws.delta, step.num_tokens * step.config.hidden_size, 0.0F);
    return sum_over_ranks(step);
  }
  const DownArgs args = {.sources = sources,
                         .num_leaves = num_leaves,
                         .num_tokens = step.num_tokens,
                         .y = step.ws.delta,
                         .ldy = step.config.hidden_size};
  HADAL_CHECK(step.kernels.down_scratch_bytes(args) <= step.ws.scratch_bytes, "workspace too small for down");
  for (const DownSource& source : sources) count_matrix(step, phase, *source.w, source.num_tokens);
  WorkList& work = step.ws.work;
  work.clear();
  work.add(sources.front().w->num_panels(), step.runner.shares());
  step.runner.run(phase, work, [&](size_t, int64_t begin, int64_t end, int worker_idx) {
    step.kernels.down(args, begin, end, step.ws.scratch_of(worker_idx));
  });
  return sum_over_ranks(step);
}

}  // namespace hadal
