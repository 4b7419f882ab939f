#include "model/rank_layout.h"

#include <algorithm>
#include <string>

#include "kernels/packed_matrix.h"
#include "kernels/row_math.h"

namespace hadal {
namespace {

// Of the whole model.
struct Leaves {
  int64_t attention = kMaxLeaves, dense = kMaxLeaves, moe = kMaxLeaves;

  int64_t fewest() const { return std::min({attention, dense, moe}); }
};

Leaves leaves_of(const ModelConfig& config, bool expert_parallel) {
  Leaves leaves;
  leaves.attention = num_leaves_for({config.num_attention_heads});
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (config.is_moe_layer(layer)) {
      const int64_t routed = expert_parallel ? config.router.n_routed_experts : config.moe_intermediate_size;
      leaves.moe = num_leaves_for({routed, config.shared_intermediate_size()});
    } else {
      leaves.dense = num_leaves_for({config.intermediate_size});
    }
  }
  return leaves;
}

// "1, 2, 4 or 8 parts"
std::string legal_degrees(int64_t most) {
  std::string text = "1";
  for (int64_t degree = 2; degree <= most; degree *= 2) {
    text += fmt::format("{}{}", degree * 2 > most ? " or " : ", ", degree);
  }
  return text + (most > 1 ? " parts" : " part only");
}

IndexRange share_of(int64_t size, const RankSlice& slice) {
  const int64_t part = size / slice.world_size;
  return {slice.rank * part, (slice.rank + 1) * part};
}

}  // namespace

int64_t num_leaves_for(std::initializer_list<int64_t> widths) {
  int64_t leaves = kMaxLeaves;
  for (const int64_t width : widths) {
    while (width % leaves != 0) leaves /= 2;
  }
  return leaves;
}

Status check_rank_slice(const ModelConfig& config, const RankSlice& slice) {
  const int64_t most = leaves_of(config, slice.expert_parallel).fewest();
  const bool is_power = slice.world_size >= 1 && (slice.world_size & (slice.world_size - 1)) == 0;
  if (!is_power || slice.world_size > most) {
    return make_error(ErrorCode::kInvalidArgument, "--tensor-parallel-size {}{}: this model can be cut into {}",
                      slice.world_size, slice.expert_parallel ? " with --enable-expert-parallel" : "",
                      legal_degrees(most));
  }
  if (slice.rank < 0 || slice.rank >= slice.world_size) {
    return make_error(ErrorCode::kInvalidArgument, "rank {} of {}: expected 0 to {}", slice.rank, slice.world_size,
                      slice.world_size - 1);
  }
  return {};
}

ModelConfig rank_config(const ModelConfig& config, const RankSlice& slice) {
  ModelConfig part = config;
  part.num_attention_heads /= slice.world_size;
  part.intermediate_size /= slice.world_size;
  if (!slice.expert_parallel) part.moe_intermediate_size /= slice.world_size;
  return part;
}

IndexRange vocab_share(const ModelConfig& config, int world_size, int rank) {
  // In whole blocks of logits, so that digests need not cut one, where every rank can have some.
  const int64_t unit = config.vocab_size >= world_size * kLogitBlock ? kLogitBlock : kPanelRows;
  const int64_t units = (config.vocab_size + unit - 1) / unit;
  const int64_t rows = (units + world_size - 1) / world_size * unit;
  return {std::min(rank * rows, config.vocab_size), std::min((rank + 1) * rows, config.vocab_size)};
}

RankLayout rank_layout(const ModelConfig& config, const RankSlice& slice) {
  const Leaves leaves = leaves_of(config, slice.expert_parallel);
  RankLayout layout;
  layout.slice = slice;
  layout.attention_leaves = leaves.attention / slice.world_size;
  layout.dense_leaves = leaves.dense / slice.world_size;
  layout.moe_leaves = leaves.moe / slice.world_size;
  layout.experts = {0, config.router.n_routed_experts};
  if (slice.expert_parallel) {
    layout.experts = share_of(config.router.n_routed_experts, slice);
    layout.experts_per_leaf = config.router.n_routed_experts / leaves.moe;
  }
  layout.shared_width = config.shared_intermediate_size() / slice.world_size;
  layout.vocab = vocab_share(config, slice.world_size, slice.rank);
  return layout;
}

TensorPart part_of_tensor(const ModelConfig& config, const RankSlice& slice, const PlannedTensor& tensor,
                          WeightRole role) {
  const bool is_matrix = tensor.shape.rank() == 2;
  TensorPart part = {{0, is_matrix ? tensor.shape[0] : 1}, {0, tensor.shape[is_matrix ? 1 : 0]}};
  switch (role) {
    case WeightRole::kQ:
    case WeightRole::kQB:
    case WeightRole::kKvB:
    case WeightRole::kDenseGate:
    case WeightRole::kDenseUp:
    case WeightRole::kSharedGate:
    case WeightRole::kSharedUp:
      part.rows = share_of(part.rows.end, slice);
      break;
    case WeightRole::kO:
    case WeightRole::kDenseDown:
    case WeightRole::kSharedDown:
      part.cols = share_of(part.cols.end, slice);
      break;
    case WeightRole::kExpertGate:
    case WeightRole::kExpertUp:
    case WeightRole::kExpertDown:
      if (slice.expert_parallel) {
        if (!share_of(config.router.n_routed_experts, slice).contains(tensor.expert)) part = {};
      } else {
        IndexRange& cut = role == WeightRole::kExpertDown ? part.cols : part.rows;
        cut = share_of(cut.end, slice);
      }
      break;
    case WeightRole::kLmHead:
      part.rows = vocab_share(config, slice.world_size, slice.rank);
      break;
    default:
      break;
  }
  return part;
}

}  // namespace hadal
