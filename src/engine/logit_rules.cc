#include "engine/logit_rules.h"

#include <algorithm>
#include <limits>

namespace hadal {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

bool in_row(std::span<const float> logits, int32_t token_id) {
  return token_id >= 0 && static_cast<size_t>(token_id) < logits.size();
}

void forbid(std::span<float> logits, int32_t token_id) {
  if (in_row(logits, token_id)) logits[token_id] = kForbidden;
}

// Adds to scratch.
void keep_only(std::span<const int32_t> allowed, std::span<float> logits, std::vector<float>& scratch) {
  const size_t begin = scratch.size();
  for (const int32_t id : allowed) scratch.push_back(in_row(logits, id) ? logits[id] : kForbidden);
  std::fill(logits.begin(), logits.end(), kForbidden);
  for (size_t i = 0; i < allowed.size(); ++i) {
    if (in_row(logits, allowed[i])) logits[allowed[i]] = scratch[begin + i];
  }
}

// Forbids the last token of each sequence whose other tokens were just generated.
void forbid_bad_words(const RuleContext& context, std::span<float> logits) {
  for (const auto& word : context.params->bad_words_token_ids) {
    if (word.empty() || word.size() - 1 > context.generated.size()) continue;
    const auto tail = context.generated.last(word.size() - 1);
    if (std::equal(tail.begin(), tail.end(), word.begin())) forbid(logits, word.back());
  }
}

bool below_min_tokens(const RuleContext& context) {
  return static_cast<int64_t>(context.generated.size()) < context.params->min_tokens;
}

void forbid_stop_tokens(const RuleContext& context, std::span<float> logits) {
  for (const int32_t id : context.params->stop_token_ids) forbid(logits, id);
  if (context.params->ignore_eos) return;
  for (const int32_t id : context.eos_token_ids) forbid(logits, id);
}

bool forbids_all(std::span<const float> logits) {
  return std::all_of(logits.begin(), logits.end(), [](float logit) { return logit == kForbidden; });
}

// The masks, all of them.
void forbid_tokens(const RuleContext& context, std::span<float> logits, std::vector<float>& scratch) {
  const SamplingParams& params = *context.params;
  const bool has_own =
      !params.allowed_token_ids.empty() || !params.bad_words_token_ids.empty() || below_min_tokens(context);
  scratch.clear();
  if (context.constraint) {
    context.constraint->apply(logits.data(), static_cast<int64_t>(logits.size()));
    if (has_own) scratch.assign(logits.begin(), logits.end());
  }
  if (!has_own) return;
  if (!params.allowed_token_ids.empty()) keep_only(params.allowed_token_ids, logits, scratch);
  forbid_bad_words(context, logits);
  if (below_min_tokens(context)) forbid_stop_tokens(context, logits);
  if (context.constraint && forbids_all(logits)) std::copy_n(scratch.begin(), logits.size(), logits.begin());
}

void apply_penalties(const RuleContext& context, std::span<float> logits) {
  const SamplingParams& params = *context.params;
  for (const TokenCounts::Entry& entry : context.counts->entries()) {
    if (!in_row(logits, entry.token_id)) continue;
    float& logit = logits[entry.token_id];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (entry.num_generated == 0) continue;
    logit -= params.frequency_penalty * static_cast<float>(entry.num_generated);
    logit -= params.presence_penalty;
  }
}

}  // namespace

bool has_rules(const RuleContext& context) {
  const SamplingParams& params = *context.params;
  return context.constraint || !params.allowed_token_ids.empty() || !params.bad_words_token_ids.empty() ||
         !params.logit_bias.empty() || below_min_tokens(context) || !context.counts->entries().empty();
}

void apply_rules(const RuleContext& context, std::span<float> logits, std::vector<float>& scratch) {
  forbid_tokens(context, logits, scratch);
  for (const auto& [token_id, bias] : context.params->logit_bias) {
    if (in_row(logits, token_id)) logits[token_id] += bias;
  }
  apply_penalties(context, logits);
}

}  // namespace hadal
