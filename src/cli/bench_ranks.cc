#include "cli/bench_ranks.h"

#include "base/log.h"
#include "cli/rank_serving.h"

namespace hadal {

Status rank_bench_model(int num_ranks, int64_t max_num_batched_tokens, ModelFlags& flags) {
  if (num_ranks == 1) return {};
  ServeOptions options;
  options.model = flags.dir.string();
  options.isa = flags.isa;
  options.kv_cache_dtype = flags.kv_cache_dtype;
  options.num_threads = flags.num_threads;
  options.max_num_batched_tokens = max_num_batched_tokens;
  options.ranks.tensor_parallel_size = num_ranks;
  options.ranks.restart_limit = 0;
  HADAL_ASSIGN_OR_RETURN(const ServeOptions placed, place_rank_zero(options));
  HADAL_ASSIGN_OR_RETURN(const OpenedModel opened, open_model_part(placed));
  HADAL_ASSIGN_OR_RETURN(RankServing ranks, start_ranks(placed, opened));
  flags.slice = placed.ranks.slice();
  flags.num_threads = placed.num_threads;
  flags.join = [ranks](std::unique_ptr<ForwardModel> own) mutable {
    return ranks.join(std::move(own), [](const std::string& why) { log_error("{}", why); });
  };
  return {};
}

}  // namespace hadal
