// The shapes that vLLM's Gaudi fork compiles before it serves ("buckets"): batch sizes times prompt lengths, and times
// cache blocks for decoding. Pure functions, after HabanaAI/vllm-hpu-extension (linear rule) and its padding-ratio
// rule, which the start scripts' *_LIMIT variables set. hadal itself needs no such shapes; this counts what they cost
// there.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

namespace hadal {

struct BucketRange {
  int64_t min = 1;
  int64_t step = 1;
  int64_t max = 1;
  double limit = 0.25;  // most padding that a skipped step may cause; only the padding-ratio rule looks at it
};

enum class BucketRule { kPaddingRatio, kLinear };

// Ascending. Errors: kInvalidArgument (min > max, a value below 1 or above 2^31, a limit outside 0 to 1, more than a
// million values).
Expected<std::vector<int64_t>> bucket_values(const BucketRange& range, BucketRule rule);

struct BucketSettings {
  BucketRange prompt_bs, prompt_seq, decode_bs, decode_block;
  int64_t max_num_batched_tokens = 0;
  int64_t num_blocks = 0;  // of the KV cache on the device; 0: as many as the largest decode bucket
  BucketRule rule = BucketRule::kPaddingRatio;
};

// Largest argument of the two functions below; the smallest is 1.
inline constexpr int64_t kMostBucketTokens = int64_t{1} << 24;
// What scripts/quickstart/start_vllm.sh sets on one node: -l, -b, -m, and the decode step by platform (OAM 8, PCIe 2).
BucketSettings single_node_buckets(int64_t max_model_len, int64_t max_num_seqs, int64_t max_num_prefill_seqs,
                                   int64_t decode_bs_step = 8);
// What set_bucketing() of its multi-node scripts makes of its variables (max_num_batched_tokens, max_num_seqs,
// input_min, input_max, output_max, block_size).
struct BucketingInputs {
  int64_t max_num_batched_tokens = 8192;
  int64_t max_num_seqs = 128;
  int64_t input_min = 1024;
  int64_t input_max = 1024;
  int64_t output_max = 2048;
  int64_t block_size = 128;
};
BucketSettings set_bucketing(const BucketingInputs& inputs);

// VLLM_{PROMPT,DECODE}_{BS,SEQ|BLOCK}_BUCKET_{MIN,STEP,MAX,LIMIT} over `settings`, and BUCKET_PADDING_RATIO for all
// limits that have no variable of their own. `read` gives a variable's value.
// Errors: kInvalidArgument naming variable and value.
using EnvironmentReader = std::function<std::optional<std::string>(const std::string& name)>;
Status apply_bucket_environment(const EnvironmentReader& read, BucketSettings* settings);

struct Bucket {
  int64_t batch_size = 0;
  int64_t length = 0;  // tokens of a prompt, or blocks of a decode step
};

struct BucketPlan {
  std::vector<Bucket> prompt, decode;  // in the peer's order: by product, length, batch size
  size_t num_omitted = 0;              // prompt buckets beyond max_num_batched_tokens
  bool prompt_over_budget = false;     // no prompt bucket fits max_num_batched_tokens, so all were kept
};
// Errors as bucket_values(), beginning with the variables' common name, and more than a million shapes.
Expected<BucketPlan> plan_buckets(const BucketSettings& settings);

// What warm-up takes there, in proportion to the number of shapes.
struct WarmupEstimate {
  double first_start_s = 0;   // everything is compiled
  double cached_start_s = 0;  // from a recipe cache
};
inline constexpr const char* kWarmupSource =
    "the guide's single-node start with -b 128 (252 shapes) takes more than 1 hour the first time, loading included, "
    "and 32.75 s in its sample of a start from the recipe cache";
WarmupEstimate estimate_warmup(const BucketPlan& plan);

}  // namespace hadal
