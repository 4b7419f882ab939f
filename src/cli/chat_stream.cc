#include "cli/chat_stream.h"

#include <algorithm>

#include "base/utf8.h"

namespace hadal {
namespace {

constexpr size_t kMostToolCalls = 1024;
constexpr size_t kMostErrorChars = 300;
constexpr double kLeastDecodeSeconds = 0.02;

const Json& member(const Json& object, const char* name) {
  static const Json kNothing;
  if (!object.is_object()) return kNothing;
  const auto found = object.find(name);
  return found == object.end() ? kNothing : *found;
}

std::string text_of(const Json& value) { return value.is_string() ? value.get<std::string>() : std::string(); }

std::optional<int64_t> count_of(const Json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  return std::max<int64_t>(0, value.get<int64_t>());
}

double seconds(ChatStream::Time from, ChatStream::Time to) { return std::chrono::duration<double>(to - from).count(); }

}  // namespace

std::optional<double> ChatReply::tokens_per_s() const {
  if (num_tokens < 2 || decode_s < kLeastDecodeSeconds) return std::nullopt;
  return static_cast<double>(num_tokens - 1) / decode_s;
}

std::string error_message_of(std::string_view body) {
  const auto parsed = parse_json(body);
  if (parsed) {
    const std::string nested = text_of(member(member(*parsed, "error"), "message"));
    if (!nested.empty()) return nested;
    const std::string flat = text_of(member(*parsed, "message"));
    if (!flat.empty()) return flat;
  }
  return to_valid_utf8(body.substr(0, kMostErrorChars));
}

Status ChatStream::push(std::string_view bytes, Time when) {
  HADAL_RETURN_IF_ERROR(events_.push(bytes));
  while (auto event = events_.next()) {
    if (done_) return {};
    if (event->data == "[DONE]") {
      done_ = true;
      return {};
    }
    auto json = parse_json(event->data);
    if (!json) return forward_error(std::move(json), "an event of the stream");
    HADAL_RETURN_IF_ERROR(take_event(*json, when));
  }
  return {};
}

Status ChatStream::take_event(const Json& event, Time when) {
  if (!event.is_object()) {
    return make_error(ErrorCode::kCorrupt, "an event of the stream is no JSON object: this is no chat answer");
  }
  if (const Json& error = member(event, "error"); !error.is_null()) {
    const std::string message = text_of(member(error, "message"));
    return make_error(ErrorCode::kUnavailable, "the server gave up: {}", message.empty() ? dump_json(error) : message);
  }
  const Json& usage = member(event, "usage");
  if (const auto count = count_of(member(usage, "completion_tokens"))) {
    reply_.num_tokens = *count;
    counted_ = true;
  }
  if (const auto count = count_of(member(usage, "prompt_tokens"))) reply_.num_prompt_tokens = *count;
  const Json& choices = member(event, "choices");
  if (!choices.is_array() || choices.empty()) return {};
  take_delta(member(choices[0], "delta"), when);
  for (const Json& part : member(member(choices[0], "delta"), "tool_calls")) {
    HADAL_RETURN_IF_ERROR(take_tool_call(part));
  }
  if (std::string reason = text_of(member(choices[0], "finish_reason")); !reason.empty()) {
    reply_.finish_reason = std::move(reason);
  }
  return {};
}

void ChatStream::take_delta(const Json& delta, Time when) {
  const Json& named = member(delta, "reasoning_content");  // vLLM's name until 2025, `reasoning` since
  const Json& reasoning = named.is_string() ? named : member(delta, "reasoning");
  const Json& content = member(delta, "content");
  const bool has_text =
      !text_of(reasoning).empty() || !text_of(content).empty() || member(delta, "tool_calls").is_array();
  if (!has_text) return;
  if (!reply_.first_s) {
    reply_.first_s = seconds(asked_, when);
    first_ = when;
  }
  reply_.decode_s = seconds(first_, when);
  if (!counted_) ++reply_.num_tokens;
  add(&reply_.reasoning, Piece::kReasoning, reasoning);
  add(&reply_.content, Piece::kContent, content);
}

Status ChatStream::take_tool_call(const Json& part) {
  const auto index = count_of(member(part, "index"));
  const size_t call = index ? static_cast<size_t>(*index) : reply_.tool_calls.size();
  if (call > reply_.tool_calls.size() || call >= kMostToolCalls) {
    return make_error(ErrorCode::kCorrupt, "the stream has tool call {} after {} others", call,
                      reply_.tool_calls.size());
  }
  if (call == reply_.tool_calls.size()) reply_.tool_calls.emplace_back();
  ChatToolCall& to = reply_.tool_calls[call];
  if (to.id.empty()) to.id = text_of(member(part, "id"));
  const Json& function = member(part, "function");
  add(&to.name, Piece::kToolCall, member(function, "name"));
  add(&to.arguments, Piece::kToolCall, member(function, "arguments"));
  return {};
}

void ChatStream::add(std::string* to, Piece piece, const Json& text) {
  const std::string added = text_of(text);
  if (added.empty()) return;
  *to += added;
  if (show_) show_(piece, added);
}

}  // namespace hadal
