// What must be true between two steps, and of every plan, as pure functions on copied snapshots.
//
// Used by tests after every step and, where EngineOptions::check_invariants says so, at run time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_blocks.h"
#include "engine/open_prefill.h"
#include "engine/sequence.h"
#include "engine/step_plan.h"

namespace hadal {

struct SequenceSnapshot {
  std::string request_id;
  SequenceRank rank;
  int64_t num_tokens = 0;
  int64_t num_prompt_tokens = 0;
  int64_t num_computed_tokens = 0;
  int64_t expanded_end = 0;
  std::vector<int32_t> block_table;
};

struct EngineSnapshot {
  std::vector<SequenceSnapshot> running;  // in the engine's order
  std::vector<SequenceSnapshot> waiting;
  std::vector<std::vector<int32_t>> held;  // block tables that ended sequences left to the open step
  std::vector<int32_t> ref_counts;         // [num_blocks]
  std::vector<uint8_t> named;              // [num_blocks]: known to the prefix cache
  std::vector<int32_t> free_blocks;        // in allocation order
  bool prefix_cache_consistent = true;
};

EngineSnapshot take_snapshot(const SequenceQueues& queues, const KvBlocks& blocks, const OpenPrefill& open);

// An empty string when all is well, else what is wrong.
std::string find_violation(const EngineSnapshot& snapshot, const EngineOptions& options);

// A plan against the state it was made from (after its reservations, before its commit).
std::string find_plan_violation(const StepPlan& plan, const EngineSnapshot& snapshot, const EngineOptions& options);

// A plan that runs while `open` is not finished: they may not share a block that the open one writes.
std::string find_company_violation(const StepPlan& plan, const StepPlan& open, const EngineOptions& options);

}  // namespace hadal
