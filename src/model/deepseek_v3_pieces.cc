// Steps in pieces: between two of them forward() may run other steps, in a workspace of its own.
#include <algorithm>
#include <chrono>
#include <vector>

#include "base/check.h"
#include "comm/communicator.h"
#include "model/absorbed_attention.h"
#include "model/deepseek_v3.h"
#include "model/layers.h"

namespace hadal {

Status DeepseekV3Model::prepare_pieces(int64_t max_tokens_between) {
  HADAL_CHECK(main_.max_tokens > 0, "prepare_pieces() before allocate_kv()");
  WorkspaceLimits limits = limits_for(max_tokens_between);
  limits.absorbed_only = true;
  HADAL_ASSIGN_OR_RETURN(between_, make_state(limits));
  return {};
}

Status DeepseekV3Model::open_step(const StepInput& input) {
  HADAL_CHECK(between_.max_tokens > 0 && !open_, "open_step() without prepare_pieces(), or while a step is open");
  const auto started = std::chrono::steady_clock::now();
  HADAL_RETURN_IF_ERROR(begin_step(input, main_));
  const StepContext step = context_of(main_, input);
  HADAL_ASSIGN_OR_RETURN(const ExpandedUnits units, agreed_units(step));
  open_.emplace();
  open_->input = input;
  open_->map = PieceMap(step, units, static_cast<int64_t>(input.logit_rows.size()));
  open_->wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return {};
}

Status DeepseekV3Model::run_pieces(int64_t count, float* logits) {
  HADAL_CHECK(open_ && count >= 1 && count <= open_->map.num_pieces() - open_->next_piece, "{} pieces are not there",
              count);
  Status status = run_open_pieces(count, logits);
  if (!status) open_.reset();
  return status;
}

Status DeepseekV3Model::run_open_pieces(int64_t count, float* logits) {
  const auto started = std::chrono::steady_clock::now();
  HADAL_RETURN_IF_ERROR(check_ranks());
  const StepContext step = context_of(main_, open_->input);
  for (const int64_t end = open_->next_piece + count; open_->next_piece < end;) {
    const PieceRange range = open_->map.range(open_->next_piece, end);
    HADAL_RETURN_IF_ERROR(run_range(step, range, logits));
    open_->next_piece += range.num_pieces();
  }
  open_->wall_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  if (open_->next_piece < open_->map.num_pieces()) return {};
  StepProfile& profile = runner_.profile();
  profile.wall_s += open_->wall_s;
  ++profile.num_steps;
  open_.reset();
  return {};
}

// Ranks meet inside a piece, so they must agree where pieces end. Waves of (head, span) pairs follow from the workers,
// which the ranks compare once; where they differ, the expanded form of a layer is one piece.
Expected<ExpandedUnits> DeepseekV3Model::agreed_units(const StepContext& step) {
  const ExpandedUnits units = expanded_units(step, weights_.layers.front());
  if (layout_.slice.world_size == 1) return units;
  if (!equal_workers_) {
    uint64_t mine = static_cast<uint64_t>(kernels_.isa);
    for (const int node : runner_.shares().node_of_worker)
      mine = mine * 1'099'511'628'211u + static_cast<uint64_t>(node) + 1;
    std::vector<uint64_t> all(static_cast<size_t>(layout_.slice.world_size));
    HADAL_RETURN_IF_ERROR(communicate(step, sizeof(mine), [&](Communicator& ranks) {
      return ranks.all_gather(std::as_bytes(std::span(&mine, 1)), reinterpret_cast<std::byte*>(all.data()));
    }));
    equal_workers_ = std::all_of(all.begin(), all.end(), [mine](uint64_t other) { return other == mine; });
  }
  if (*equal_workers_ || units.num_units() == 0) return units;
  return ExpandedUnits{.num_waves = 1, .num_segments = 1};
}

Status DeepseekV3Model::run_range(const StepContext& step, const PieceRange& range, float* logits) {
  if (range.part == LayerPart::kHead) return run_head(step, open_->input, logits);
  const LayerWeights& layer = weights_.layers[static_cast<size_t>(range.layer)];
  const PagedKvView& kv = kv_layers_[static_cast<size_t>(range.layer)];
  switch (range.part) {
    case LayerPart::kAttentionInput:
      add_and_normalise(step, layer.input_norm, range.layer > 0);
      if (range.layer > 0) observe_residual(step, range.layer - 1);
      run_attention_input(step, layer, kv);
      return {};
    case LayerPart::kExpanded:
      attend_expanded_units(step, layer, kv, open_->map.units(), range.unit_begin, range.unit_end);
      return {};
    case LayerPart::kAbsorbed:
      attend_absorbed(step, layer, kv, range.layer, range.unit_begin, range.unit_end);
      return {};
    case LayerPart::kAttentionOutput:
      return run_attention_output(step, layer, kv, range.layer);
    case LayerPart::kMlpInput:
      add_and_normalise(step, layer.post_attention_norm, true);
      run_mlp_input(step, layer, range.layer);
      return {};
    case LayerPart::kMlpOutput:
      return run_mlp_output(step, layer);
    case LayerPart::kHead:
      break;
  }
  return {};
}

}  // namespace hadal
