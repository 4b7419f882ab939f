#include "model/step_context.h"

#include <algorithm>

namespace hadal {
namespace {

// Cuts the panels of all items into ranges and calls run_item(item_idx, panel_begin, panel_end) on the pool. chunk as
// in ThreadPool::parallel_for.
template <typename PanelsOf, typename RunItem>
void for_each_panel_range(const StepContext& step, size_t num_items, PanelsOf panels_of, RunItem run_item,
                          int64_t chunk) {
  std::vector<int64_t>& ends = step.ws.panel_ends;
  ends.clear();
  int64_t total = 0;
  for (size_t i = 0; i < num_items; ++i) ends.push_back(total += panels_of(i));
  step.pool.parallel_for(
      total,
      [&](int64_t begin, int64_t end, int) {
        auto item = static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin());
        for (; begin < end; ++item) {
          const int64_t item_begin = item == 0 ? 0 : ends[item - 1];
          const int64_t stop = std::min(end, ends[item]);
          if (begin < stop) run_item(item, begin - item_begin, stop - item_begin);
          begin = stop;
        }
      },
      chunk);
}

}  // namespace

int64_t num_leaves_for(std::initializer_list<int64_t> widths) {
  int64_t leaves = kMaxLeaves;
  for (const int64_t width : widths) {
    while (width % leaves != 0) leaves /= 2;
  }
  return leaves;
}

void add_and_normalise(const StepContext& step, const float* norm_weight, bool add_delta) {
  const int64_t hidden = step.config.hidden_size;
  step.pool.parallel_for(step.num_tokens, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* x = step.ws.x + row * hidden;
      if (add_delta) {
        const float* delta = step.ws.delta + row * hidden;
        for (int64_t i = 0; i < hidden; ++i) x[i] += delta[i];
      }
      step.kernels.rms_norm({.x = x,
                             .weight = norm_weight,
                             .dim = hidden,
                             .eps = step.config.rms_norm_eps,
                             .out = step.act_row(step.ws.normed, row, hidden)});
    }
  });
}

void run_linears(const StepContext& step, std::span<const LinearArgs> linears) {
  for_each_panel_range(
      step, linears.size(), [&](size_t i) { return linears[i].w->num_panels(); },
      [&](size_t i, int64_t begin, int64_t end) { step.kernels.linear(linears[i], begin, end); }, 0);
}

void run_gate_ups(const StepContext& step, std::span<const GateUpArgs> gate_ups) {
  // Experts have different numbers of tokens: let workers take panels as they become free.
  for_each_panel_range(
      step, gate_ups.size(), [&](size_t i) { return gate_ups[i].gate->num_panels(); },
      [&](size_t i, int64_t begin, int64_t end) { step.kernels.gate_up(gate_ups[i], begin, end); }, 1);
}

void run_down(const StepContext& step, std::span<const DownSource> sources, int64_t num_leaves) {
  const DownArgs args = {.sources = sources,
                         .num_leaves = num_leaves,
                         .num_tokens = step.num_tokens,
                         .y = step.ws.delta,
                         .ldy = step.config.hidden_size};
  HADAL_CHECK(step.kernels.down_scratch_bytes(args) <= step.ws.scratch_bytes, "workspace too small for down");
  step.pool.parallel_for(sources.front().w->num_panels(), [&](int64_t begin, int64_t end, int worker_idx) {
    step.kernels.down(args, begin, end, step.ws.scratch_of(worker_idx));
  });
}

}  // namespace hadal
