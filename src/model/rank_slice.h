// Which part of a model a rank holds. Heads, MLP widths and the vocabulary are cut into equal consecutive parts, one
// for each rank; with expert_parallel whole routed experts are instead (design.md section 4 a, b). All else is on every
// rank.
#pragma once

namespace hadal {

struct RankSlice {
  int rank = 0;
  int world_size = 1;  // a power of two, at most the number of leaves of every row-parallel linear
  bool expert_parallel = false;
};

}  // namespace hadal
