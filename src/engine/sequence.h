// A request inside the engine: its tokens, its progress, its blocks. Owned by EngineCore, used on the engine thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <set>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_blocks.h"
#include "engine/request.h"
#include "engine/scheduler_policy.h"
#include "engine/token_counts.h"

namespace hadal {

struct Sequence {
  Request request;  // prompt_ids moved into tokens
  OutputSink sink;
  SequenceRank rank;
  uint64_t seed = 0;

  std::vector<int32_t> tokens;  // prompt, then generated
  int64_t num_prompt_tokens = 0;
  int64_t num_computed_tokens = 0;  // leading tokens whose rows are in the cache; less than tokens.size() while alive
  int64_t expanded_end = 0;         // prompt tokens in full tiles
  int64_t length_limit = 0;         // tokens it may ever have

  SequenceBlocks blocks;  // empty while waiting
  TokenCounts counts;     // for penalties

  // Prompt logprobs: entry i describes prompt token i; entry 0 has no logprob. Complete with num_prompt_tokens entries.
  std::vector<TokenOutput> prompt_outputs;
  int64_t num_cached_tokens = 0;  // at first admission
  bool admitted = false;          // ever
  int num_losses = 0;             // recover() while it ran
  bool in_open_step = false;      // a member of OpenPrefill's batch
  std::chrono::steady_clock::time_point submitted;
  double queue_time_s = 0;  // from submitted to first admission

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_remaining_tokens() const { return num_tokens() - num_computed_tokens; }
  int64_t num_generated_tokens() const { return num_tokens() - num_prompt_tokens; }
  std::span<const int32_t> generated() const { return std::span(tokens).subspan(num_prompt_tokens); }
  std::span<const int32_t> computed() const { return std::span(tokens).first(num_computed_tokens); }
  bool wants_prompt_logprobs() const { return request.sampling.num_prompt_logprobs >= 0; }
  bool misses_prompt_logprobs() const {
    return wants_prompt_logprobs() && num_generated_tokens() == 0 &&
           static_cast<int64_t>(prompt_outputs.size()) < num_prompt_tokens;
  }
  bool decodes() const { return num_remaining_tokens() == 1 && num_generated_tokens() > 0; }
};

// Where the tokens end whose rows other sequences may use (design.md 4 e).
inline int64_t shareable_end(const Sequence& sequence, const EngineOptions& options) {
  return options.prefix_cache_generated ? std::numeric_limits<int64_t>::max() : sequence.expanded_end;
}

struct RanksBefore {
  bool operator()(const Sequence* a, const Sequence* b) const { return runs_before(a->rank, b->rank); }
};

struct SequenceQueues {
  std::vector<Sequence*> running;            // in rank order
  std::set<Sequence*, RanksBefore> waiting;  // hold no blocks
};

}  // namespace hadal
