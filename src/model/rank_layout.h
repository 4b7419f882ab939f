// What a RankSlice means for a given model: how many parts it can be cut into, and what one part has. Cuts: query heads
// with their rows of q_b_proj (q_proj), kv_b_proj and columns of o_proj; widths of MLPs; routed experts, by width or
// (expert_parallel) in whole groups; the vocabulary of lm_head, in shares of whole panels of 32. The rest is on every
// rank. Definition: design.md section 4 a, b.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "base/status.h"
#include "model/config.h"
#include "model/rank_slice.h"
#include "model/weight_plan.h"

namespace hadal {

// Leaves of a row-parallel linear (design: canonical arithmetic).
inline constexpr int64_t kMaxLeaves = 16;

// Leaves of a row-parallel linear: the largest power of two, at most 16, that divides every given width.
int64_t num_leaves_for(std::initializer_list<int64_t> widths);

// Whether the model can be cut so. Errors: kInvalidArgument, listing the degrees that it can be cut into.
Status check_rank_slice(const ModelConfig& config, const RankSlice& slice);

// The configuration of one rank's part: its heads and widths. Everything else is as in the whole, the vocabulary, the
// number of routed experts and, with expert_parallel, moe_intermediate_size (and with it shared_intermediate_size())
// included. Requires a slice without problems, as all that follows.
ModelConfig rank_config(const ModelConfig& config, const RankSlice& slice);

struct IndexRange {
  int64_t begin = 0, end = 0;

  int64_t size() const { return end - begin; }
  bool contains(int64_t i) const { return i >= begin && i < end; }
};

// Tokens whose logits `rank` computes. The last ranks may have fewer than the others, or none.
IndexRange vocab_share(const ModelConfig& config, int world_size, int rank);

struct RankLayout {
  RankSlice slice;
  // Of this rank's part of the row-parallel linears.
  int64_t attention_leaves = 1, dense_leaves = 1, moe_leaves = 1;
  IndexRange experts;            // routed ones that it has, whole or in part
  int64_t experts_per_leaf = 0;  // expert_parallel: of the routed experts; 0 otherwise
  int64_t shared_width = 0;      // of its part of the shared expert
  IndexRange vocab;              // its share

  // The leaf of this rank that a routed expert of its own is added to; -1: by columns, to all of them.
  int64_t leaf_of(int64_t expert) const {
    return experts_per_leaf > 0 ? (expert - experts.begin) / experts_per_leaf : -1;
  }
};
RankLayout rank_layout(const ModelConfig& config, const RankSlice& slice);

// The part of a matrix (or vector: one row) that a rank has. Empty ranges: none of it.
struct TensorPart {
  IndexRange rows, cols;
};
// role: tensor.role, or kLmHead where the embedding serves as the head.
TensorPart part_of_tensor(const ModelConfig& config, const RankSlice& slice, const PlannedTensor& tensor,
                          WeightRole role);

}  // namespace hadal
