#include "engine/invariants.h"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

namespace hadal {
namespace {

SequenceSnapshot snapshot_of(const Sequence& sequence) {
  return {.request_id = sequence.request.request_id,
          .rank = sequence.rank,
          .num_tokens = sequence.num_tokens(),
          .num_prompt_tokens = sequence.num_prompt_tokens,
          .num_computed_tokens = sequence.num_computed_tokens,
          .expanded_end = sequence.expanded_end,
          .block_table = sequence.blocks.table};
}

int64_t blocks_for(int64_t num_tokens, int64_t block_size) { return (num_tokens + block_size - 1) / block_size; }

std::string check_sequence(const SequenceSnapshot& sequence, const EngineOptions& options) {
  const auto& id = sequence.request_id;
  if (sequence.num_tokens < sequence.num_prompt_tokens) return fmt::format("{}: lost tokens of its prompt", id);
  if (sequence.num_computed_tokens >= sequence.num_tokens) {
    return fmt::format("{}: {} tokens computed of {}", id, sequence.num_computed_tokens, sequence.num_tokens);
  }
  const int64_t tile = options.prompt_tile_tokens;
  if (sequence.expanded_end != sequence.num_prompt_tokens / tile * tile) {
    return fmt::format("{}: expanded_end {} with a prompt of {}, tile {}", id, sequence.expanded_end,
                       sequence.num_prompt_tokens, tile);
  }
  const int64_t num_blocks = static_cast<int64_t>(sequence.block_table.size());
  if (num_blocks < blocks_for(sequence.num_computed_tokens, options.block_size) ||
      num_blocks > blocks_for(sequence.num_tokens, options.block_size)) {
    return fmt::format("{}: {} blocks for {} computed of {} tokens", id, num_blocks, sequence.num_computed_tokens,
                       sequence.num_tokens);
  }
  return {};
}

std::string check_queues(const EngineSnapshot& snapshot, const EngineOptions& options) {
  std::set<std::string> ids;
  for (const auto* queue : {&snapshot.running, &snapshot.waiting}) {
    for (size_t i = 0; i < queue->size(); ++i) {
      const SequenceSnapshot& sequence = (*queue)[i];
      if (auto wrong = check_sequence(sequence, options); !wrong.empty()) return wrong;
      if (!ids.insert(sequence.request_id).second) return fmt::format("{} is there twice", sequence.request_id);
      if (i > 0 && !runs_before((*queue)[i - 1].rank, sequence.rank)) {
        return fmt::format("{} is out of order", sequence.request_id);
      }
    }
  }
  for (const SequenceSnapshot& sequence : snapshot.waiting) {
    if (!sequence.block_table.empty() || sequence.num_computed_tokens != 0) {
      return fmt::format("{} waits but holds blocks", sequence.request_id);
    }
  }
  if (static_cast<int64_t>(snapshot.running.size()) > options.max_num_seqs) return "too many sequences run";
  return {};
}

std::string check_references(const EngineSnapshot& snapshot) {
  std::vector<int32_t> expected(snapshot.ref_counts.size(), 0);
  for (const SequenceSnapshot& sequence : snapshot.running) {
    for (const int32_t block : sequence.block_table) ++expected.at(block);
  }
  for (const auto& table : snapshot.held) {
    for (const int32_t block : table) ++expected.at(block);
  }
  for (size_t block = 0; block < expected.size(); ++block) {
    if (expected[block] != snapshot.ref_counts[block]) {
      return fmt::format("block {} is held by {} sequences, counted {}", block, expected[block],
                         snapshot.ref_counts[block]);
    }
  }
  std::vector<uint8_t> is_free(expected.size(), 0);
  for (const int32_t block : snapshot.free_blocks) {
    if (expected.at(block) != 0) return fmt::format("block {} is free and held", block);
    if (is_free[block]++) return fmt::format("block {} is free twice", block);
  }
  for (size_t block = 0; block < expected.size(); ++block) {
    if (expected[block] == 0 && !is_free[block]) return fmt::format("block {} is lost", block);
  }
  return snapshot.prefix_cache_consistent ? "" : "the prefix cache contradicts itself";
}

// Only blocks that are computed, lie at the same place and within full prompt tiles of all holders are shared.
std::string check_sharing(const EngineSnapshot& snapshot, const EngineOptions& options) {
  std::map<int32_t, size_t> place;
  for (const SequenceSnapshot& sequence : snapshot.running) {
    for (size_t i = 0; i < sequence.block_table.size(); ++i) {
      const int32_t block = sequence.block_table[i];
      const int64_t end = static_cast<int64_t>(i + 1) * options.block_size;
      const bool is_known = snapshot.named[block] || snapshot.ref_counts[block] > 1;
      if (is_known && end > sequence.num_computed_tokens) {
        return fmt::format("{}: block {} is shared or named before it is computed", sequence.request_id, block);
      }
      if (is_known && end > sequence.expanded_end && !options.prefix_cache_generated) {
        return fmt::format("{}: block {} is shared or named beyond the full tiles", sequence.request_id, block);
      }
      const auto [found, is_new] = place.emplace(block, i);
      if (!is_new && found->second != i) return fmt::format("block {} lies at two places", block);
    }
  }
  return {};
}

std::string check_planned(const StepPlan& plan, const PlannedSequence& planned, const EngineSnapshot& snapshot,
                          const EngineOptions& options) {
  const int64_t end = planned.first_position + planned.num_tokens;
  if (planned.num_tokens < 1) return "a planned sequence without tokens";
  if (planned.num_blocks != blocks_for(end, options.block_size)) return "a block table of the wrong length";
  if (planned.num_logits > planned.num_tokens) return "more logits than tokens";
  for (int64_t i = 0; i < planned.num_logits; ++i) {
    const int64_t row = planned.token_begin + planned.num_tokens - planned.num_logits + i;
    if (plan.logit_rows.at(planned.logit_begin + i) != row) return "logits of the wrong rows";
  }
  for (int64_t i = planned.first_position / options.block_size; i < planned.num_blocks; ++i) {
    const int32_t block = plan.block_ids.at(planned.block_begin + i);
    if (snapshot.ref_counts[block] != 1) return fmt::format("block {} is written while shared", block);
    if (snapshot.named[block]) return fmt::format("block {} is written while in the prefix cache", block);
  }
  const auto holds = [&](const std::vector<int32_t>& table) {
    return static_cast<int64_t>(table.size()) >= planned.num_blocks &&
           std::equal(table.begin(), table.begin() + planned.num_blocks, plan.block_ids.begin() + planned.block_begin);
  };
  if (std::any_of(snapshot.held.begin(), snapshot.held.end(), holds)) return {};
  const auto owner = std::find_if(snapshot.running.begin(), snapshot.running.end(),
                                  [&](const auto& sequence) { return holds(sequence.block_table); });
  if (owner == snapshot.running.end()) return "a plan for blocks that no running sequence holds";
  if (owner->num_computed_tokens != planned.first_position || owner->expanded_end != planned.expanded_end ||
      end > owner->num_tokens) {
    return fmt::format("{}: planned [{}, {}) with {} of {} computed", owner->request_id, planned.first_position, end,
                       owner->num_computed_tokens, owner->num_tokens);
  }
  return {};
}

}  // namespace

EngineSnapshot take_snapshot(const SequenceQueues& queues, const KvBlocks& blocks, const OpenPrefill& open) {
  EngineSnapshot snapshot;
  for (const Sequence* sequence : queues.running) snapshot.running.push_back(snapshot_of(*sequence));
  for (const Sequence* sequence : queues.waiting) snapshot.waiting.push_back(snapshot_of(*sequence));
  for (const SequenceBlocks& held : open.held()) snapshot.held.push_back(held.table);
  for (int32_t block = 0; block < blocks.allocator().num_blocks(); ++block) {
    snapshot.ref_counts.push_back(blocks.allocator().ref_count(block));
    snapshot.named.push_back(blocks.prefix_cache().contains(block));
  }
  snapshot.free_blocks = blocks.allocator().free_blocks();
  snapshot.prefix_cache_consistent = blocks.prefix_cache().consistent();
  return snapshot;
}

std::string find_violation(const EngineSnapshot& snapshot, const EngineOptions& options) {
  if (auto wrong = check_queues(snapshot, options); !wrong.empty()) return wrong;
  if (auto wrong = check_references(snapshot); !wrong.empty()) return wrong;
  return check_sharing(snapshot, options);
}

std::string find_plan_violation(const StepPlan& plan, const EngineSnapshot& snapshot, const EngineOptions& options) {
  int64_t token_end = 0, block_end = 0, logit_end = 0;
  std::set<int32_t> last_blocks;
  for (const PlannedSequence& planned : plan.sequences) {
    if (planned.token_begin != token_end || planned.block_begin != block_end || planned.logit_begin != logit_end) {
      return "planned sequences do not lie one after another";
    }
    token_end += planned.num_tokens;
    block_end += planned.num_blocks;
    logit_end += planned.num_logits;
    if (auto wrong = check_planned(plan, planned, snapshot, options); !wrong.empty()) return wrong;
    if (!last_blocks.insert(plan.block_ids[block_end - 1]).second) return "a sequence is planned twice";
  }
  if (token_end != static_cast<int64_t>(plan.token_ids.size()) ||
      block_end != static_cast<int64_t>(plan.block_ids.size()) ||
      logit_end != static_cast<int64_t>(plan.logit_rows.size())) {
    return "rows that belong to no sequence";
  }
  if (token_end > options.max_num_batched_tokens) return "more tokens than the budget";
  return {};
}

std::string find_company_violation(const StepPlan& plan, const StepPlan& open, const EngineOptions& options) {
  std::set<int32_t> written;
  for (const PlannedSequence& planned : open.sequences) {
    for (int64_t i = planned.first_position / options.block_size; i < planned.num_blocks; ++i) {
      written.insert(open.block_ids.at(planned.block_begin + i));
    }
  }
  for (const int32_t block : plan.block_ids) {
    if (written.contains(block)) return fmt::format("block {} is used while the open step writes it", block);
  }
  return {};
}

}  // namespace hadal
