// Log-probabilities as the OpenAI API writes them.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "engine/request.h"
#include "text/tokenizer.h"

namespace hadal {

// The shortest number that reads back as the same float; -9999.0 for minus infinity and NaN.
double logprob_number(float logprob);

// The four parallel lists of /v1/completions.
class CompletionLogprobs {
 public:
  // num_top: `logprobs` of the request. as_ids: tokens are written "token_id:N". first_offset: characters before.
  CompletionLogprobs(const Tokenizer& tokenizer, int32_t num_top, bool as_ids, int64_t first_offset = 0);
  void add(const TokenOutput& token);
  Json take();

 private:
  const Tokenizer& tokenizer_;
  const int32_t num_top_;
  const bool as_ids_;
  int64_t offset_;
  Json tokens_ = Json::array();
  Json token_logprobs_ = Json::array();
  Json top_logprobs_ = Json::array();
  Json text_offset_ = Json::array();
};

// An entry of chat's `logprobs.content`.
Json chat_logprob_entry(const Tokenizer& tokenizer, const TokenOutput& token, bool as_ids);

// `prompt_logprobs`: null for the first token, then {"id": {logprob, rank, decoded_token}}.
Json prompt_logprobs_json(const Tokenizer& tokenizer, const std::vector<TokenOutput>& tokens);

// Code points of valid UTF-8.
int64_t num_code_points(std::string_view text);

}  // namespace hadal
