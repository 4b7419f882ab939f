#include "engine/scheduler_policy.h"

#include <algorithm>

namespace hadal {

int64_t chunk_tokens(const ChunkLimits& limits) {
  int64_t num_tokens = std::min(limits.num_remaining_tokens, limits.budget_tokens);
  if (limits.max_chunk_tokens > 0) num_tokens = std::min(num_tokens, limits.max_chunk_tokens);
  const int64_t end = limits.first_position + num_tokens;
  if (end < limits.expanded_end) {
    const int64_t tile_begin = end / limits.tile_tokens * limits.tile_tokens;
    if (tile_begin > limits.first_position) num_tokens = tile_begin - limits.first_position;
  }
  return num_tokens;
}

}  // namespace hadal
