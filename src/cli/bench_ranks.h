// Ranks of this machine for benchmarks.
#pragma once

#include "base/status.h"
#include "bench/loaded_model.h"

namespace hadal {

// Starts the other ranks, and makes `flags` load this one's part and join them; nothing with one rank. Binds the
// calling thread to this rank's cores. Errors: as open_model_part() and RankHead::start().
Status rank_bench_model(int num_ranks, int64_t max_num_batched_tokens, ModelFlags& flags);

}  // namespace hadal
