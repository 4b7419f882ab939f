#include "server/choice_text.h"

#include <algorithm>

namespace hadal {
namespace {

// A character half-written by the prompt lies within its last tokens.
constexpr size_t kPromptTailTokens = 8;

std::span<const int32_t> tail_of(std::span<const int32_t> ids) {
  return ids.subspan(ids.size() - std::min(ids.size(), kPromptTailTokens));
}

}  // namespace

ChoiceText::ChoiceText(const Tokenizer& tokenizer, const GenerationParams& params, std::span<const int32_t> prompt_ids)
    : detokenizer_(tokenizer, params.skip_special_tokens, tail_of(prompt_ids), params.shown_special_ids),
      stop_matcher_(params.stop, params.include_stop_str_in_output),
      eos_token_id_(params.sampling.ignore_eos ? -1 : tokenizer.eos_token_id().value_or(-1)),
      include_stop_(params.include_stop_str_in_output),
      min_tokens_(params.sampling.min_tokens) {}

void ChoiceText::push_text(const std::string& text, ChoiceDelta* delta) {
  if (num_tokens_ <= min_tokens_) {  // what may not end the answer yet is no part of a stop string either
    delta->text += text;
    return;
  }
  auto matched = stop_matcher_.push(text);
  delta->text += matched.emit;
  if (matched.stopped) {
    delta->finish_reason = FinishReason::kStop;
    delta->stop_reason = matched.which;
  }
}

ChoiceDelta ChoiceText::push(RequestOutput&& output) {
  ChoiceDelta delta;
  delta.is_first = std::exchange(is_first_, false);
  delta.prompt_tokens = std::move(output.prompt_tokens);
  const bool by_token = output.finish_reason == FinishReason::kStop && output.stop_token_id >= 0;
  for (size_t i = 0; i < output.tokens.size() && delta.finish_reason == FinishReason::kNone; ++i) {
    const int32_t id = output.tokens[i].token_id;
    delta.tokens.push_back(std::move(output.tokens[i]));
    ++num_tokens_;
    const bool is_stop_token = by_token && i + 1 == output.tokens.size();
    if (!is_stop_token || include_stop_) push_text(detokenizer_.push(id), &delta);
  }
  if (delta.finish_reason != FinishReason::kNone || output.finish_reason == FinishReason::kNone) return delta;
  push_text(detokenizer_.flush(), &delta);
  if (delta.finish_reason != FinishReason::kNone) return delta;
  delta.text += stop_matcher_.flush();
  delta.finish_reason = output.finish_reason;
  if (by_token && output.stop_token_id != eos_token_id_) delta.stop_reason = output.stop_token_id;
  return delta;
}

Json finish_reason_json(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return nullptr;
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAbort:
      return "abort";
    case FinishReason::kError:
      return "error";
  }
  return nullptr;
}

}  // namespace hadal
