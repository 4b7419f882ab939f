#include "engine/token_counts.h"

namespace hadal {

TokenCounts::TokenCounts(const SamplingParams& params, std::span<const int32_t> prompt_ids) {
  const bool counts_prompt = params.repetition_penalty != 1;
  active_ = counts_prompt || params.presence_penalty != 0 || params.frequency_penalty != 0;
  if (!counts_prompt) return;
  for (const int32_t token_id : prompt_ids) entry(token_id);
}

void TokenCounts::add_generated(int32_t token_id) {
  if (active_) ++entry(token_id).num_generated;
}

TokenCounts::Entry& TokenCounts::entry(int32_t token_id) {
  const auto [found, is_new] = entry_idx_.try_emplace(token_id, entries_.size());
  if (is_new) entries_.push_back({.token_id = token_id});
  return entries_[found->second];
}

}  // namespace hadal
