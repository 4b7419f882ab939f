#include "server/responses_answer.h"

#include <string_view>

namespace hadal {
namespace {

Json responses_usage(const Usage& usage) {
  return {{"input_tokens", usage.num_prompt_tokens},
          {"input_tokens_details", {{"cached_tokens", usage.num_cached_tokens}}},
          {"output_tokens", usage.num_completion_tokens},
          {"output_tokens_details", {{"reasoning_tokens", std::max<int64_t>(usage.num_reasoning_tokens, 0)}}},
          {"total_tokens", usage.num_prompt_tokens + usage.num_completion_tokens}};
}

// "response.<subject>.<what>": what the events about an item's text are called.
const char* text_event(std::string_view item_type, bool done) {
  if (item_type == "message") return done ? "response.output_text.done" : "response.output_text.delta";
  if (item_type == "reasoning") return done ? "response.reasoning_text.done" : "response.reasoning_text.delta";
  return done ? "response.function_call_arguments.done" : "response.function_call_arguments.delta";
}

}  // namespace

ResponsesAnswer::ResponsesAnswer(AnswerContext context, std::unique_ptr<ChatTextSplitter> splitter, Json echo,
                                 OnDone on_done)
    : EventAnswer(std::move(context), std::move(splitter)), echo_(std::move(echo)), on_done_(std::move(on_done)) {}

void ResponsesAnswer::emit(const char* type, Json fields) {
  if (!params().stream) return;
  Json event = {{"type", type}, {"sequence_number", sequence_number_++}};
  event.update(fields);
  send_event(dump_json(event), type);
}

std::string ResponsesAnswer::make_id(const char* prefix) const {
  return fmt::format("{}_{}_{}", prefix, context().head.id.substr(context().head.id.find('_') + 1), output_.size());
}

Json ResponsesAnswer::response(const char* status) const {
  Json json = {{"id", context().head.id},
               {"object", "response"},
               {"created_at", context().head.created},
               {"status", status},
               {"model", context().head.model},
               {"error", nullptr},
               {"incomplete_details", nullptr},
               {"output", output_},
               {"usage", nullptr}};
  json.update(echo_);
  return json;
}

void ResponsesAnswer::on_begin(const Usage&) {
  for (const char* type : {"response.created", "response.in_progress"}) {
    emit(type, {{"response", response("in_progress")}});
  }
}

void ResponsesAnswer::on_event(ChatEvent&& event) {
  switch (event.kind) {
    case ChatEvent::Kind::kReasoning:
      open_text("reasoning");
      return append(event.text);
    case ChatEvent::Kind::kContent:
      open_text("message");
      return append(event.text);
    case ChatEvent::Kind::kCallBegin:
      return open_call(event);
    case ChatEvent::Kind::kCallArguments:
      return append(event.text);
    case ChatEvent::Kind::kCallEnd:
      return close("completed");
    case ChatEvent::Kind::kCallBroken:
      return close_broken_call(event.text);
  }
}

void ResponsesAnswer::on_end() {
  const bool complete = finish_reason() != FinishReason::kLength;
  if (!open_ && output_.empty()) open_text("message");
  close(complete ? "completed" : "incomplete");
}

Json ResponsesAnswer::part_of(const OpenItem& open) const {
  if (std::string_view(open.type) == "reasoning") return {{"type", "reasoning_text"}, {"text", open.text}};
  return {{"type", "output_text"}, {"text", open.text}, {"annotations", Json::array()}, {"logprobs", open.logprobs}};
}

void ResponsesAnswer::open_text(const char* type) {
  if (open_ && open_->type == std::string_view(type)) return;
  close("completed");
  const bool is_message = std::string_view(type) == "message";
  Json item = {{"type", type}, {"id", make_id(is_message ? "msg" : "rs")}, {"status", "in_progress"}};
  if (is_message) item["role"] = "assistant";
  if (!is_message) item["summary"] = Json::array();
  item["content"] = Json::array();
  open_ = OpenItem{type, std::move(item), {}};
  emit("response.output_item.added", {{"output_index", output_.size()}, {"item", open_->item}});
  emit("response.content_part.added", {{"item_id", open_->item["id"]},
                                       {"output_index", output_.size()},
                                       {"content_index", 0},
                                       {"part", part_of(*open_)}});
}

void ResponsesAnswer::open_call(const ChatEvent& event) {
  close("completed");
  open_ = OpenItem{"function_call",
                   {{"type", "function_call"},
                    {"id", make_id("fc")},
                    {"call_id", event.call_id},
                    {"name", event.call_name},
                    {"arguments", ""},
                    {"status", "in_progress"}},
                   {}};
  emit("response.output_item.added", {{"output_index", output_.size()}, {"item", open_->item}});
}

void ResponsesAnswer::append(const std::string& text) {
  if (!open_ || text.empty()) return;
  open_->text += text;
  Json fields = {{"item_id", open_->item["id"]}, {"output_index", output_.size()}};
  const std::string_view type = open_->type;
  if (type != "function_call") fields["content_index"] = 0;
  fields["delta"] = text;
  Json logprobs = take_logprobs();  // those of reasoning and calls are not told
  if (type == "message") {
    open_->logprobs.insert(open_->logprobs.end(), logprobs.begin(), logprobs.end());
    fields["logprobs"] = std::move(logprobs);
  }
  emit(text_event(type, false), std::move(fields));
}

void ResponsesAnswer::close(const char* status) {
  if (!open_) return;
  OpenItem open = std::move(*open_);
  open_.reset();
  Json fields = {{"item_id", open.item["id"]}, {"output_index", output_.size()}};
  if (std::string_view(open.type) == "function_call") {
    open.item["arguments"] = open.text;
    fields["name"] = open.item["name"];
    fields["arguments"] = open.text;
    emit(text_event(open.type, true), std::move(fields));
  } else {
    const Json part = part_of(open);
    fields["content_index"] = 0;
    Json done = fields;
    done["text"] = open.text;
    if (std::string_view(open.type) == "message") done["logprobs"] = open.logprobs;
    emit(text_event(open.type, true), std::move(done));
    fields["part"] = part;
    emit("response.content_part.done", std::move(fields));
    open.item["content"] = Json::array({part});
  }
  open.item["status"] = status;
  emit("response.output_item.done", {{"output_index", output_.size()}, {"item", open.item}});
  output_.push_back(std::move(open.item));
}

// A call that came to nothing is given back as the text it is. A stream has announced it by then.
void ResponsesAnswer::close_broken_call(const std::string& text) {
  if (open_ && std::string_view(open_->type) == "function_call") {
    if (params().stream) close("incomplete");
    open_.reset();
  }
  open_text("message");
  append(text);
}

Json ResponsesAnswer::body(const Usage& usage) {
  const bool complete = finish_reason() != FinishReason::kLength;
  Json json = response(complete ? "completed" : "incomplete");
  if (!complete) json["incomplete_details"] = {{"reason", "max_output_tokens"}};
  json["usage"] = responses_usage(usage);
  if (on_done_) on_done_(json);
  return json;
}

void ResponsesAnswer::end_stream(const Usage& usage) {
  Json json = body(usage);
  const char* type = json["status"] == "completed" ? "response.completed" : "response.incomplete";
  emit(type, {{"response", std::move(json)}});
}

void ResponsesAnswer::end_stream_with(const ApiError& error) {
  close("incomplete");
  Json json = response("failed");
  json["error"] = {{"code", "server_error"}, {"message", error.message}};
  emit("response.failed", {{"response", std::move(json)}});
}

}  // namespace hadal
