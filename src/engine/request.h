// What the engine is asked and what it answers. Token ids only: text stays above.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace hadal {

// Restricts the next token, e.g. to a grammar. Implemented above the engine (text supplies masks, the server adapts).
// Called on the engine thread only, in the order of the tokens.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // Sets logits of forbidden tokens to -infinity, never of all. logits: f32 [vocab_size].
  virtual void apply(float* logits, int64_t vocab_size) = 0;
  virtual void accept(int32_t token_id) = 0;
};

// Field names and defaults are vLLM's. Validated by the protocol layer; the engine checks ids against the vocabulary.
struct SamplingParams {
  float temperature = 1;         // 0: greedy
  float top_p = 1;               // (0, 1]
  int32_t top_k = 0;             // 0: off
  float min_p = 0;               // [0, 1]
  float presence_penalty = 0;    // [-2, 2], over generated tokens
  float frequency_penalty = 0;   // [-2, 2], over generated tokens
  float repetition_penalty = 1;  // > 0, over prompt and generated tokens
  std::vector<std::pair<int32_t, float>> logit_bias;
  std::vector<int32_t> allowed_token_ids;                 // empty: all
  std::vector<std::vector<int32_t>> bad_words_token_ids;  // sequences that must not be completed
  std::optional<uint64_t> seed;  // absent: drawn from the engine's seed and the request's number
  int64_t max_tokens = 16;
  int64_t min_tokens = 0;  // until then no stop token may be sampled
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  int32_t num_logprobs = -1;         // -1: none; 0: the sampled token's only; k: the k best as well
  int32_t num_prompt_logprobs = -1;  // the same for prompt tokens, always of the raw distribution
  bool processed_logprobs = false;   // of the distribution that the token was drawn from, instead of the raw one
};

struct Request {
  std::string request_id;           // unique among running requests
  std::vector<int32_t> prompt_ids;  // 1 .. max_model_len - 1 ids below vocab_size
  SamplingParams sampling;
  uint64_t sample_idx = 0;                      // which of `n` samples of one prompt
  int32_t priority = 0;                         // lower runs first; equal ones in order of arrival
  std::string cache_salt;                       // prefix blocks are shared only among equal salts
  std::shared_ptr<TokenConstraint> constraint;  // shared with nobody while the request runs; may be null
};

struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0;  // of the raw distribution, before temperature, penalties and masks, unless processed_logprobs
  int32_t rank = 0;   // 1: the most likely
};

struct TokenOutput {
  int32_t token_id = 0;
  std::optional<TokenLogprob> logprob;     // when num_logprobs >= 0
  std::vector<TokenLogprob> top_logprobs;  // best first, num_logprobs entries
};

enum class FinishReason { kNone, kStop, kLength, kAbort, kError };

struct RequestOutput {
  std::vector<TokenOutput> tokens;  // new since the last output; several after a multi-token step
  // Once, with the first token: entry 0 (BOS) has no logprob.
  std::vector<TokenOutput> prompt_tokens;
  FinishReason finish_reason = FinishReason::kNone;
  int32_t stop_token_id = -1;  // the stop token that ended it: it is also the last entry of `tokens`
  std::string error;           // kError: what went wrong
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;  // prompt tokens found in the prefix cache at first admission
  double queue_time_s = 0;        // from submit to first admission
};

// Called on the engine thread; must not block or throw. The last call has finish_reason != kNone; none follow it.
using OutputSink = std::function<void(RequestOutput&&)>;

}  // namespace hadal
