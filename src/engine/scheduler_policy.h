// Who goes next, and how far: pure functions, no memory and no state.
//
// A step takes, in this order and within the token budget: one token of every running sequence that decodes; chunks of
// running sequences that prefill; then waiting ones, in rank order, until the first that cannot enter (so that a long
// prompt is not overtaken forever). When blocks are short the last of the running sequences in rank order goes back to
// waiting and is recomputed later: the first one always advances. EngineOptions::priority_preemption and max_itl_ms
// (latency_policy.h) change this: the one lets a waiting sequence displace running ones first, the other takes prompts
// out of the steps that decode.
#pragma once

#include <cstdint>

namespace hadal {

struct SequenceRank {
  int32_t priority = 0;  // lower first
  uint64_t arrival = 0;  // then earlier first; unique
};

inline bool runs_before(const SequenceRank& a, const SequenceRank& b) {
  return a.priority != b.priority ? a.priority < b.priority : a.arrival < b.arrival;
}

// Whether a waiting sequence that finds no room may take that of a running one (--scheduling-policy priority).
inline bool may_displace(const SequenceRank& waiting, const SequenceRank& running) {
  return waiting.priority < running.priority;
}

struct ChunkLimits {
  int64_t first_position = 0;
  int64_t num_remaining_tokens = 0;  // known tokens from first_position on
  int64_t expanded_end = 0;
  int64_t tile_tokens = 0;
  int64_t budget_tokens = 0;     // left in this step
  int64_t max_chunk_tokens = 0;  // 0: no limit of its own
};

// Tokens to run of one sequence in this step. A chunk that would stop inside a full tile stops before it instead, if it
// reaches that far: the expanded form rebuilds keys and values from the cache for each chunk of a tile.
int64_t chunk_tokens(const ChunkLimits& limits);

// Blocks that must stay free when another sequence enters: one for each that runs, so that entering is not followed at
// once by a preemption. None when nothing runs, so that something always does.
inline int64_t admission_headroom_blocks(int64_t num_running) { return num_running; }

}  // namespace hadal
