// One choice's tokens to text: detokenises, finds stop strings, decides how the answer ends. No I/O; single-owner.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/request.h"
#include "server/protocol.h"
#include "text/detokenizer.h"
#include "text/stop_matcher.h"

namespace hadal {

// What one engine output adds to a choice.
struct ChoiceDelta {
  std::string text;                        // valid UTF-8; "" while a character or a stop string may be incomplete
  std::vector<TokenOutput> tokens;         // counted and reported in logprobs
  std::vector<TokenOutput> prompt_tokens;  // with the first output, when prompt logprobs were asked for
  bool is_first = false;
  FinishReason finish_reason = FinishReason::kNone;
  Json stop_reason;  // the stop string or stop id that ended it; null for the tokenizer's EOS
};

class ChoiceText {
 public:
  // The tokenizer must outlive this.
  ChoiceText(const Tokenizer& tokenizer, const GenerationParams& params, std::span<const int32_t> prompt_ids);

  // Not after a delta whose finish_reason is not kNone. kStop is also reported for a stop string, which the engine
  // knows nothing of: then tokens after it are dropped, and the engine has to be told.
  ChoiceDelta push(RequestOutput&& output);

  int64_t num_tokens() const { return num_tokens_; }

 private:
  void push_text(const std::string& text, ChoiceDelta* delta);

  StreamingDetokenizer detokenizer_;
  StopMatcher stop_matcher_;
  const int32_t eos_token_id_;  // ends an answer without a reason; -1: none does
  const bool include_stop_;
  const int64_t min_tokens_;
  int64_t num_tokens_ = 0;
  bool is_first_ = true;
};

// "stop", "length", ...; null for kNone.
Json finish_reason_json(FinishReason reason);

}  // namespace hadal
