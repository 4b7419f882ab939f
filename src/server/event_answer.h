// Base of the answers that are made of chat events: those of /v1/responses and /v1/messages. One choice. IO thread
// only.
#pragma once

#include <memory>
#include <string>

#include "server/answer.h"
#include "server/chat_events.h"

namespace hadal {

class EventAnswer : public Answer {
 public:
  EventAnswer(AnswerContext context, std::unique_ptr<ChatTextSplitter> splitter)
      : Answer(std::move(context)), splitter_(std::move(splitter)) {}

  void on_delta(size_t choice, ChoiceDelta&& delta, const Usage& usage) final;

 protected:
  virtual void on_begin(const Usage& usage) = 0;  // before the first event
  virtual void on_event(ChatEvent&& event) = 0;
  virtual void on_end() = 0;  // after the last one; finish_reason() and stop_reason() are set

  void add_usage_details(Usage* usage) const final;

  FinishReason finish_reason() const { return finish_reason_; }
  const Json& stop_reason() const { return stop_reason_; }
  // Entries of the tokens since the last call, as chat's logprobs have them; empty unless asked for.
  Json take_logprobs() { return std::exchange(logprobs_, Json::array()); }

 private:
  const std::unique_ptr<ChatTextSplitter> splitter_;
  FinishReason finish_reason_ = FinishReason::kNone;
  Json stop_reason_;
  Json logprobs_ = Json::array();
  int64_t num_reasoning_tokens_ = 0;
};

}  // namespace hadal
