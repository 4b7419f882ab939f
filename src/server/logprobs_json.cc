#include "server/logprobs_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/utf8.h"

namespace hadal {
namespace {

constexpr double kMinusInfinity = -9999.0;  // JSON has no infinity

std::string token_text(const Tokenizer& tokenizer, int32_t id, bool as_ids) {
  return as_ids ? fmt::format("token_id:{}", id) : to_valid_utf8(tokenizer.token_bytes(id));
}

Json bytes_json(std::string_view bytes) {
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return list;
}

Json chat_candidate(const Tokenizer& tokenizer, int32_t id, float logprob, bool as_ids) {
  return {{"token", token_text(tokenizer, id, as_ids)},
          {"logprob", logprob_number(logprob)},
          {"bytes", bytes_json(tokenizer.token_bytes(id))}};
}

}  // namespace

double logprob_number(float logprob) {
  if (!std::isfinite(logprob)) return kMinusInfinity;
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, logprob).ptr;
  double number = logprob;
  std::from_chars(digits, end, number);
  return number;
}

int64_t num_code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

CompletionLogprobs::CompletionLogprobs(const Tokenizer& tokenizer, int32_t num_top, bool as_ids, int64_t first_offset)
    : tokenizer_(tokenizer), num_top_(num_top), as_ids_(as_ids), offset_(first_offset) {}

void CompletionLogprobs::add(const TokenOutput& token) {
  const std::string text = token_text(tokenizer_, token.token_id, as_ids_);
  text_offset_.push_back(offset_);
  offset_ += num_code_points(text);
  if (!token.logprob) {  // the first token of a prompt
    tokens_.push_back(text);
    token_logprobs_.push_back(nullptr);
    top_logprobs_.push_back(nullptr);
    return;
  }
  // The chosen token first, then the best ones. Of ids with equal text the first stays: it is the likelier, or chosen.
  Json top = Json::object();
  top[text] = logprob_number(token.logprob->logprob);
  const size_t num_best = std::min(token.top_logprobs.size(), static_cast<size_t>(std::max(num_top_, 0)));
  for (size_t i = 0; i < num_best; ++i) {
    const TokenLogprob& candidate = token.top_logprobs[i];
    std::string name = token_text(tokenizer_, candidate.token_id, as_ids_);
    if (!top.contains(name)) top[std::move(name)] = logprob_number(candidate.logprob);
  }
  tokens_.push_back(text);
  token_logprobs_.push_back(logprob_number(token.logprob->logprob));
  top_logprobs_.push_back(std::move(top));
}

Json CompletionLogprobs::take() {
  return {{"text_offset", std::move(text_offset_)},
          {"token_logprobs", std::move(token_logprobs_)},
          {"tokens", std::move(tokens_)},
          {"top_logprobs", std::move(top_logprobs_)}};
}

Json chat_logprob_entry(const Tokenizer& tokenizer, const TokenOutput& token, bool as_ids) {
  Json entry = chat_candidate(tokenizer, token.token_id, token.logprob ? token.logprob->logprob : 0, as_ids);
  Json top = Json::array();
  for (const TokenLogprob& candidate : token.top_logprobs) {
    top.push_back(chat_candidate(tokenizer, candidate.token_id, candidate.logprob, as_ids));
  }
  entry["top_logprobs"] = std::move(top);
  return entry;
}

Json prompt_logprobs_json(const Tokenizer& tokenizer, const std::vector<TokenOutput>& tokens) {
  Json list = Json::array();
  for (const TokenOutput& token : tokens) {
    if (!token.logprob) {
      list.push_back(nullptr);
      continue;
    }
    Json entry = Json::object();
    const auto add = [&](const TokenLogprob& candidate) {
      entry[std::to_string(candidate.token_id)] = {
          {"logprob", logprob_number(candidate.logprob)},
          {"rank", candidate.rank},
          {"decoded_token", to_valid_utf8(tokenizer.token_bytes(candidate.token_id))}};
    };
    add(*token.logprob);
    for (const TokenLogprob& candidate : token.top_logprobs) add(candidate);
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace hadal
