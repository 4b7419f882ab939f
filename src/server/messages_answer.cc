#include "server/messages_answer.h"

#include <string_view>

#include "server/messages_request.h"

namespace hadal {
namespace {

// Here input_tokens does not count what the cache held.
Json messages_usage(const Usage& usage) {
  return {{"input_tokens", usage.num_prompt_tokens - usage.num_cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", usage.num_cached_tokens},
          {"output_tokens", usage.num_completion_tokens}};
}

}  // namespace

void MessagesAnswer::emit(const char* type, Json fields) {
  if (!params().stream) return;
  Json event = {{"type", type}};
  event.update(fields);
  send_event(dump_json(event), type);
}

Json MessagesAnswer::message(const Usage& usage) const {
  return {{"id", context().head.id},  {"type", "message"},
          {"role", "assistant"},      {"model", context().head.model},
          {"content", content_},      {"stop_reason", nullptr},
          {"stop_sequence", nullptr}, {"usage", messages_usage(usage)}};
}

void MessagesAnswer::on_begin(const Usage& usage) {
  Usage before = usage;
  before.num_completion_tokens = 0;
  emit("message_start", {{"message", message(before)}});
  emit("ping", Json::object());
}

void MessagesAnswer::on_event(ChatEvent&& event) {
  switch (event.kind) {
    case ChatEvent::Kind::kReasoning:
      open_text("thinking");
      return append(event.text);
    case ChatEvent::Kind::kContent:
      open_text("text");
      return append(event.text);
    case ChatEvent::Kind::kCallBegin:
      close();
      return open("tool_use", {{"id", event.call_id}, {"name", event.call_name}, {"input", Json::object()}});
    case ChatEvent::Kind::kCallArguments:
      return append(event.text);
    case ChatEvent::Kind::kCallEnd:
      ++num_whole_calls_;
      return close();
    case ChatEvent::Kind::kCallBroken:
      return close_broken_call(event.text);
  }
}

void MessagesAnswer::open(const char* type, Json fields) {
  Json block = {{"type", type}};
  block.update(fields);
  open_ = OpenBlock{type, std::move(block), {}};
  emit("content_block_start", {{"index", content_.size()}, {"content_block", open_->block}});
}

void MessagesAnswer::open_text(const char* type) {
  if (open_ && open_->type == std::string_view(type)) return;
  close();
  Json fields = {{type, ""}};
  if (std::string_view(type) == "thinking") fields["signature"] = "";
  open(type, std::move(fields));
}

void MessagesAnswer::append(const std::string& text) {
  if (!open_ || text.empty()) return;
  open_->text += text;
  const std::string_view type = open_->type;
  Json delta = type == "text"       ? Json{{"type", "text_delta"}, {"text", text}}
               : type == "thinking" ? Json{{"type", "thinking_delta"}, {"thinking", text}}
                                    : Json{{"type", "input_json_delta"}, {"partial_json", text}};
  emit("content_block_delta", {{"index", content_.size()}, {"delta", std::move(delta)}});
}

void MessagesAnswer::close() {
  if (!open_) return;
  OpenBlock closed = std::move(*open_);
  open_.reset();
  emit("content_block_stop", {{"index", content_.size()}});
  if (std::string_view(closed.type) != "tool_use") {
    closed.block[closed.type] = std::move(closed.text);
  } else if (auto input = parse_json(closed.text)) {
    closed.block["input"] = std::move(*input);
  }
  content_.push_back(std::move(closed.block));
}

// A call that came to nothing is given back as the text it is. A stream has announced it by then.
void MessagesAnswer::close_broken_call(const std::string& text) {
  if (open_ && std::string_view(open_->type) == "tool_use") {
    if (params().stream) close();
    open_.reset();
  }
  open_text("text");
  append(text);
}

std::pair<Json, Json> MessagesAnswer::stop() const {
  if (finish_reason() == FinishReason::kLength) return {"max_tokens", nullptr};
  if (stop_reason().is_string()) return {"stop_sequence", stop_reason()};
  return {num_whole_calls_ > 0 ? "tool_use" : "end_turn", nullptr};
}

Json MessagesAnswer::body(const Usage& usage) {
  Json json = message(usage);
  std::tie(json["stop_reason"], json["stop_sequence"]) = stop();
  return json;
}

void MessagesAnswer::end_stream(const Usage& usage) {
  const auto [reason, sequence] = stop();
  emit("message_delta",
       {{"delta", {{"stop_reason", reason}, {"stop_sequence", sequence}}}, {"usage", messages_usage(usage)}});
  emit("message_stop", Json::object());
}

void MessagesAnswer::end_stream_with(const ApiError& error) {
  send_event(dump_json(messages_error_body(error)), "error");
}

HttpResponse MessagesAnswer::error_response(const ApiError& error) const { return messages_error_response(error); }

}  // namespace hadal
