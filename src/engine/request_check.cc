#include "engine/request_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace hadal {
namespace {

struct RangeRule {
  const char* name;
  double value;
  double low;
  double high;
};

Status check_ranges(std::span<const RangeRule> rules) {
  for (const RangeRule& rule : rules) {
    if (rule.value >= rule.low && rule.value <= rule.high) continue;
    return make_error(ErrorCode::kInvalidArgument, "{} must be in [{}, {}], got {}", rule.name, rule.low, rule.high,
                      rule.value);
  }
  return {};
}

Status check_ids(const char* name, std::span<const int32_t> ids, int64_t vocab_size) {
  for (const int32_t id : ids) {
    if (id >= 0 && id < vocab_size) continue;
    return make_error(ErrorCode::kInvalidArgument, "{}: token id {} is outside the vocabulary of {}", name, id,
                      vocab_size);
  }
  return {};
}

Status check_sampling(const SamplingParams& params, int64_t vocab_size) {
  constexpr double kMaxFloat = std::numeric_limits<float>::max();
  constexpr double kSmallest = std::numeric_limits<float>::min();
  constexpr double kMaxInt = std::numeric_limits<int64_t>::max();
  const RangeRule rules[] = {
      {"temperature", params.temperature, 0, kMaxFloat},
      {"top_p", params.top_p, kSmallest, 1},
      {"top_k", static_cast<double>(params.top_k), -1, kMaxInt},
      {"min_p", params.min_p, 0, 1},
      {"presence_penalty", params.presence_penalty, -kMaxFloat, kMaxFloat},
      {"frequency_penalty", params.frequency_penalty, -kMaxFloat, kMaxFloat},
      {"repetition_penalty", params.repetition_penalty, kSmallest, kMaxFloat},
      {"max_tokens", static_cast<double>(params.max_tokens), 0, kMaxInt},
      {"min_tokens", static_cast<double>(params.min_tokens), 0, kMaxInt},
      {"logprobs", static_cast<double>(params.num_logprobs), -1, static_cast<double>(vocab_size)},
      {"prompt_logprobs", static_cast<double>(params.num_prompt_logprobs), -1, static_cast<double>(vocab_size)},
  };
  HADAL_RETURN_IF_ERROR(check_ranges(rules));
  HADAL_RETURN_IF_ERROR(check_ids("allowed_token_ids", params.allowed_token_ids, vocab_size));
  HADAL_RETURN_IF_ERROR(check_ids("stop_token_ids", params.stop_token_ids, vocab_size));
  for (const auto& word : params.bad_words_token_ids) {
    if (word.empty()) return make_error(ErrorCode::kInvalidArgument, "bad_words: an entry without tokens");
    HADAL_RETURN_IF_ERROR(check_ids("bad_words", word, vocab_size));
  }
  for (const auto& [id, bias] : params.logit_bias) {
    HADAL_RETURN_IF_ERROR(check_ids("logit_bias", {&id, 1}, vocab_size));
    if (!std::isfinite(bias)) return make_error(ErrorCode::kInvalidArgument, "logit_bias of token {} is {}", id, bias);
  }
  return {};
}

}  // namespace

int64_t sequence_length_limit(const EngineOptions& options) {
  return std::min(options.max_model_len, options.num_blocks * options.block_size);
}

Status check_request(const Request& request, const EngineOptions& options, int64_t vocab_size) {
  const int64_t num_prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
  if (num_prompt_tokens == 0) return make_error(ErrorCode::kInvalidArgument, "the prompt has no tokens");
  if (num_prompt_tokens >= options.max_model_len) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the prompt has {} tokens; with one to generate that is {}, but max_model_len is {}",
                      num_prompt_tokens, num_prompt_tokens + 1, options.max_model_len);
  }
  if (num_prompt_tokens >= sequence_length_limit(options)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the prompt has {} tokens; with one to generate that is {}, but the KV cache holds {} ({} blocks "
                      "of {} tokens)",
                      num_prompt_tokens, num_prompt_tokens + 1, options.num_blocks * options.block_size,
                      options.num_blocks, options.block_size);
  }
  HADAL_RETURN_IF_ERROR(check_ids("prompt", request.prompt_ids, vocab_size));
  return check_sampling(request.sampling, vocab_size);
}

Status check_options(const EngineOptions& options, const ForwardModel& model) {
  constexpr double kMaxBlocks = std::numeric_limits<int32_t>::max() - 1;
  constexpr double kMaxTokens = std::numeric_limits<int32_t>::max();
  constexpr double kMaxMilliseconds = 1e9;
  const RangeRule rules[] = {
      {"max_model_len", static_cast<double>(options.max_model_len), 2,
       static_cast<double>(model.max_position_embeddings())},
      {"max_num_seqs", static_cast<double>(options.max_num_seqs), 1, kMaxTokens},
      // Every running sequence can advance in every step.
      {"max_num_batched_tokens", static_cast<double>(options.max_num_batched_tokens),
       static_cast<double>(options.max_num_seqs), kMaxTokens},
      {"block_size", static_cast<double>(options.block_size), 1, kMaxTokens},
      {"num_blocks", static_cast<double>(options.num_blocks), 1, kMaxBlocks},
      {"prompt_tile_tokens", static_cast<double>(options.prompt_tile_tokens), 1, kMaxTokens},
      {"max_queued_requests", static_cast<double>(options.max_queued_requests), 0, kMaxTokens},
      {"max_chunk_tokens", static_cast<double>(options.max_chunk_tokens), 0, kMaxTokens},
      {"max_prompt_logprob_rows", static_cast<double>(options.max_prompt_logprob_rows), 1, kMaxTokens},
      {"max_itl_ms", options.max_itl_ms, 0, kMaxMilliseconds},
      {"num_valid_tokens", static_cast<double>(options.num_valid_tokens), 0, static_cast<double>(model.vocab_size())},
  };
  HADAL_RETURN_IF_ERROR(check_ranges(rules));
  if (options.prompt_tile_tokens % options.block_size != 0) {
    return make_error(ErrorCode::kInvalidArgument, "block_size {} does not divide the prompt tile of {} tokens",
                      options.block_size, options.prompt_tile_tokens);
  }
  if (sequence_length_limit(options) < 2) {
    return make_error(ErrorCode::kInvalidArgument, "a KV cache of {} blocks of {} tokens holds no prompt and answer",
                      options.num_blocks, options.block_size);
  }
  return check_ids("eos_token_ids", options.eos_token_ids, model.vocab_size());
}

}  // namespace hadal
