// Turns the queues into the next step: applies the policy (scheduler_policy.h), reserves blocks, preempts when short.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_blocks.h"
#include "engine/sequence.h"
#include "engine/step_batch.h"

namespace hadal {

class OpenPrefill;

// Single-owner: the engine thread. Queues and blocks outlive it.
class Planner {
 public:
  // `open`: outlives it; what it holds goes first when blocks are short.
  Planner(const EngineOptions& options, KvBlocks& blocks, SequenceQueues& queues, OpenPrefill& open);

  // Fills `batch` (cleared first). Empty only when nothing waits or runs. Blocks for every row of the plan are
  // reserved; they go back with the sequence that holds them. Cost: O(running + admitted * log(waiting)).
  void plan(StepBatch& batch);

  // The same in two: the sequences that decode, and, while no step is open, up to max_tokens of prompts.
  void plan_decodes_only(StepBatch& batch);
  void plan_prefills_only(StepBatch& batch, int64_t max_tokens);

  // Takes a running sequence's blocks and lets it wait; its tokens stay. Drops the open step that it is part of.
  void preempt(Sequence* sequence);

 private:
  void start(StepBatch& batch, int64_t max_tokens);
  void make_room(StepBatch& batch);
  void plan_decodes(StepBatch& batch);
  void plan_prefills(StepBatch& batch);
  void admit_waiting(StepBatch& batch);
  bool admit(Sequence* sequence);
  bool reserve_next_row(Sequence* sequence, StepBatch& batch);
  void add_chunk(Sequence* sequence, StepBatch& batch);
  void add_member(Sequence* sequence, int64_t num_tokens, int64_t num_logits, StepBatch& batch);

  const EngineOptions& options_;
  KvBlocks& blocks_;
  SequenceQueues& queues_;
  OpenPrefill& open_;
  int64_t budget_tokens_ = 0;
  int64_t budget_prompt_logits_ = 0;
};

}  // namespace hadal
