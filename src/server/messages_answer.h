// The answer of /v1/messages: a message of content blocks, or the events that build it.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "server/event_answer.h"

namespace hadal {

class MessagesAnswer : public EventAnswer {
 public:
  using EventAnswer::EventAnswer;

 protected:
  void on_begin(const Usage& usage) override;
  void on_event(ChatEvent&& event) override;
  void on_end() override { close(); }
  Json body(const Usage& usage) override;
  void end_stream(const Usage& usage) override;
  void end_stream_with(const ApiError& error) override;
  HttpResponse error_response(const ApiError& error) const override;

 private:
  struct OpenBlock {
    const char* type;  // "text", "thinking", "tool_use"
    Json block;        // as it was announced
    std::string text;  // or the input's JSON
  };

  void emit(const char* type, Json fields);  // nothing unless streaming
  void open(const char* type, Json fields);
  void open_text(const char* type);
  void append(const std::string& text);
  void close();
  void close_broken_call(const std::string& text);
  Json message(const Usage& usage) const;
  std::pair<Json, Json> stop() const;  // stop_reason, stop_sequence

  Json content_ = Json::array();  // closed blocks
  std::optional<OpenBlock> open_;
  int num_whole_calls_ = 0;
};

}  // namespace hadal
