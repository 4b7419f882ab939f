#include "server/event_answer.h"

#include "server/logprobs_json.h"

namespace hadal {

void EventAnswer::on_delta(size_t, ChoiceDelta&& delta, const Usage& usage) {
  if (delta.is_first) on_begin(usage);
  auto events = splitter_->push(delta.text);
  if (splitter_->in_reasoning()) num_reasoning_tokens_ += static_cast<int64_t>(delta.tokens.size());
  if (params().sampling.num_logprobs >= 0) {
    for (const TokenOutput& token : delta.tokens)
      logprobs_.push_back(chat_logprob_entry(tokenizer(), token, params().return_tokens_as_token_ids));
  }
  const bool finished = delta.finish_reason != FinishReason::kNone;
  if (finished) {
    finish_reason_ = delta.finish_reason;
    stop_reason_ = std::move(delta.stop_reason);
    for (ChatEvent& event : splitter_->flush()) events.push_back(std::move(event));
  }
  for (ChatEvent& event : events) on_event(std::move(event));
  if (finished) on_end();
}

void EventAnswer::add_usage_details(Usage* usage) const {
  if (splitter_->saw_reasoning()) usage->num_reasoning_tokens = num_reasoning_tokens_;
}

}  // namespace hadal
