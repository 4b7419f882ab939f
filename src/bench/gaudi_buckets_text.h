// A bucket plan for people and for programs.
#pragma once

#include <string>

#include "base/json.h"
#include "bench/gaudi_buckets.h"

namespace hadal {

// The five lines of the fork's log that people compare and scripts look for, in its order and spelling: configurations,
// lists (here sorted by batch size, then length), and how many prompt buckets the token budget left out.
std::string bucket_lines(const BucketSettings& settings, const BucketPlan& plan);

// {"rule", "max_num_batched_tokens", "ranges": {..}, "prompt": [[bs, seq], ..], "decode": [[bs, blocks], ..],
//  "num_prompt", "num_decode", "num_omitted", "prompt_over_budget", "warm_up": {..}}; lists in order of warm-up.
Json bucket_plan_to_json(const BucketSettings& settings, const BucketPlan& plan);

}  // namespace hadal
