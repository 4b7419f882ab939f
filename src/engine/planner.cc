#include "engine/planner.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "engine/open_prefill.h"

namespace hadal {

Planner::Planner(const EngineOptions& options, KvBlocks& blocks, SequenceQueues& queues, OpenPrefill& open)
    : options_(options), blocks_(blocks), queues_(queues), open_(open) {}

void Planner::start(StepBatch& batch, int64_t max_tokens) {
  batch.clear();
  budget_tokens_ = max_tokens;
  budget_prompt_logits_ = options_.max_prompt_logprob_rows;
}

// Preempts for the first of the waiting where it may displace the last of the running.
void Planner::make_room(StepBatch& batch) {
  if (!options_.priority_preemption) return;
  while (!queues_.waiting.empty() && !queues_.running.empty()) {
    const Sequence* next = *queues_.waiting.begin();
    const auto num_running = static_cast<int64_t>(queues_.running.size());
    const int64_t num_needed = blocks_.blocks_for(next->num_tokens()) + admission_headroom_blocks(num_running);
    if (num_running < options_.max_num_seqs && num_needed <= blocks_.allocator().num_free()) return;
    if (!may_displace(next->rank, queues_.running.back()->rank)) return;
    preempt(queues_.running.back());
    ++batch.num_preempted;
  }
}

void Planner::plan_decodes_only(StepBatch& batch) {
  start(batch, options_.max_num_batched_tokens);
  make_room(batch);
  plan_decodes(batch);
}

void Planner::plan_prefills_only(StepBatch& batch, int64_t max_tokens) {
  start(batch, max_tokens);
  plan_prefills(batch);
  admit_waiting(batch);
}

void Planner::plan(StepBatch& batch) {
  start(batch, options_.max_num_batched_tokens);
  make_room(batch);
  const int64_t num_displaced = batch.num_preempted;
  plan_decodes(batch);
  plan_prefills(batch);
  // Blocks that a preemption just freed are for those that still run, or for whom they were freed.
  if (batch.num_preempted == num_displaced) admit_waiting(batch);
}

void Planner::plan_decodes(StepBatch& batch) {
  // By index: preemption shortens the list, always at its end and never before the sequence at hand.
  for (size_t i = 0; i < queues_.running.size() && budget_tokens_ > 0; ++i) {
    Sequence* sequence = queues_.running[i];
    // A resumed member of the open step whose other tokens were cached has one left too.
    if (sequence->in_open_step || !sequence->decodes() || !reserve_next_row(sequence, batch)) continue;
    add_member(sequence, 1, 1, batch);
    ++batch.num_decode_tokens;
  }
}

bool Planner::reserve_next_row(Sequence* sequence, StepBatch& batch) {
  while (!blocks_.grow(sequence->blocks, sequence->num_tokens())) {
    if (!open_.held().empty()) {
      open_.drop();
      continue;
    }
    Sequence* victim = queues_.running.back();
    preempt(victim);
    ++batch.num_preempted;
    if (victim == sequence) return false;
  }
  return true;
}

void Planner::preempt(Sequence* sequence) {
  const auto found = std::find(queues_.running.rbegin(), queues_.running.rend(), sequence);
  HADAL_CHECK(found != queues_.running.rend(), "preempted sequence does not run");
  queues_.running.erase(std::next(found).base());
  if (sequence->in_open_step) open_.drop();
  blocks_.release(sequence->blocks);
  sequence->num_computed_tokens = 0;
  queues_.waiting.insert(sequence);
}

void Planner::plan_prefills(StepBatch& batch) {
  for (Sequence* sequence : queues_.running) {
    if (!sequence->decodes()) add_chunk(sequence, batch);
  }
}

void Planner::admit_waiting(StepBatch& batch) {
  while (budget_tokens_ > 0 && !queues_.waiting.empty() &&
         static_cast<int64_t>(queues_.running.size()) < options_.max_num_seqs) {
    Sequence* sequence = *queues_.waiting.begin();
    if (!admit(sequence)) return;
    add_chunk(sequence, batch);
  }
}

bool Planner::admit(Sequence* sequence) {
  const auto num_cached = blocks_.admit(
      sequence->blocks, {.tokens = sequence->tokens,
                         .salt = sequence->request.cache_salt,
                         .shareable_end = shareable_end(*sequence, options_),
                         // A token found in the cache has no logits.
                         .use_cached = !sequence->misses_prompt_logprobs(),
                         .headroom_blocks = admission_headroom_blocks(static_cast<int64_t>(queues_.running.size()))});
  if (!num_cached) return false;
  sequence->num_computed_tokens = *num_cached;
  if (!sequence->admitted) {
    sequence->admitted = true;
    sequence->queue_time_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - sequence->submitted).count();
    sequence->num_cached_tokens = *num_cached;
  }
  queues_.waiting.erase(queues_.waiting.begin());
  const auto where = std::upper_bound(queues_.running.begin(), queues_.running.end(), sequence, RanksBefore{});
  queues_.running.insert(where, sequence);
  return true;
}

void Planner::add_chunk(Sequence* sequence, StepBatch& batch) {
  ChunkLimits limits{.first_position = sequence->num_computed_tokens,
                     .num_remaining_tokens = sequence->num_remaining_tokens(),
                     .expanded_end = sequence->expanded_end,
                     .tile_tokens = options_.prompt_tile_tokens,
                     .budget_tokens = budget_tokens_,
                     .max_chunk_tokens = options_.max_chunk_tokens};
  // Rows of the positions [num_described, end) are wanted for prompt logprobs; entry 0 of the outputs needs no row.
  const bool describes = sequence->misses_prompt_logprobs();
  const int64_t first_described =
      std::max<int64_t>(limits.first_position, static_cast<int64_t>(sequence->prompt_outputs.size()) - 1);
  if (describes) {
    limits.budget_tokens =
        std::min(limits.budget_tokens, first_described - limits.first_position + budget_prompt_logits_);
  }
  const int64_t num_tokens = chunk_tokens(limits);
  if (num_tokens <= 0) return;
  const int64_t end = limits.first_position + num_tokens;
  int64_t num_logits = end == sequence->num_tokens() ? 1 : 0;
  if (describes) {
    num_logits = std::max<int64_t>(num_logits, end - first_described);
    budget_prompt_logits_ -= num_logits;
  }
  add_member(sequence, num_tokens, num_logits, batch);
  batch.num_prefill_tokens += num_tokens;
}

void Planner::add_member(Sequence* sequence, int64_t num_tokens, int64_t num_logits, StepBatch& batch) {
  StepPlan& plan = batch.plan;
  const int64_t first = sequence->num_computed_tokens;
  const PlannedSequence planned{.token_begin = static_cast<int64_t>(plan.token_ids.size()),
                                .num_tokens = num_tokens,
                                .first_position = first,
                                .expanded_end = sequence->expanded_end,
                                .block_begin = static_cast<int64_t>(plan.block_ids.size()),
                                .num_blocks = blocks_.blocks_for(first + num_tokens),
                                .logit_begin = static_cast<int64_t>(plan.logit_rows.size()),
                                .num_logits = num_logits};
  const auto tokens = sequence->tokens.begin() + first;
  plan.token_ids.insert(plan.token_ids.end(), tokens, tokens + num_tokens);
  const auto& table = sequence->blocks.table;
  plan.block_ids.insert(plan.block_ids.end(), table.begin(), table.begin() + planned.num_blocks);
  for (int64_t i = num_tokens - num_logits; i < num_tokens; ++i) {
    plan.logit_rows.push_back(static_cast<int32_t>(planned.token_begin + i));
  }
  plan.sequences.push_back(planned);
  batch.members.push_back(sequence);
  budget_tokens_ -= num_tokens;
}

}  // namespace hadal
