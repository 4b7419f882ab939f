// Turns the queues into the next step: applies the policy (scheduler_policy.h), reserves blocks, preempts when short.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_blocks.h"
#include "engine/sequence.h"
#include "engine/step_plan.h"

namespace hadal {

// A plan together with whose it is; entry i of members belongs to plan.sequences[i].
struct StepBatch {
  StepPlan plan;
  std::vector<Sequence*> members;
  int64_t num_prefill_tokens = 0;
  int64_t num_decode_tokens = 0;
  int64_t num_preempted = 0;

  void clear();
};

// Single-owner: the engine thread. Queues and blocks outlive it.
class Planner {
 public:
  Planner(const EngineOptions& options, KvBlocks& blocks, SequenceQueues& queues);

  // Fills `batch` (cleared first). Empty only when nothing waits or runs. Blocks for every row of the plan are
  // reserved; they go back with the sequence that holds them. Cost: O(running + admitted * log(waiting)).
  void plan(StepBatch& batch);

  // Takes a running sequence's blocks and lets it wait; its tokens stay.
  void preempt(Sequence* sequence);

 private:
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
  int64_t budget_tokens_ = 0;
  int64_t budget_prompt_logits_ = 0;
};

}  // namespace hadal
