// The answer of /v1/responses: a response object of output items, or the events that build it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "server/event_answer.h"
#include "server/responses_request.h"

namespace hadal {

class ResponsesAnswer : public EventAnswer {
 public:
  // `on_done` gets the whole response object when it is complete, also of a stream; not after a failure.
  using OnDone = std::function<void(const Json& response)>;
  ResponsesAnswer(AnswerContext context, std::unique_ptr<ChatTextSplitter> splitter, Json echo, OnDone on_done);

 protected:
  void on_begin(const Usage& usage) override;
  void on_event(ChatEvent&& event) override;
  void on_end() override;
  Json body(const Usage& usage) override;
  void end_stream(const Usage& usage) override;
  void end_stream_with(const ApiError& error) override;

 private:
  struct OpenItem {
    const char* type;  // "message", "reasoning", "function_call"
    Json item;         // as it was announced
    std::string text;  // or arguments
    Json logprobs = Json::array();
  };

  void emit(const char* type, Json fields);  // nothing unless streaming
  std::string make_id(const char* prefix) const;
  void open_text(const char* type);
  void open_call(const ChatEvent& event);
  void append(const std::string& text);
  void close(const char* status);
  void close_broken_call(const std::string& text);
  Json part_of(const OpenItem& open) const;
  Json response(const char* status) const;

  const Json echo_;
  const OnDone on_done_;
  Json output_ = Json::array();  // closed items
  std::optional<OpenItem> open_;
  int64_t sequence_number_ = 0;
};

}  // namespace hadal
