#include "bench/serve_stream.h"

#include <algorithm>

namespace hadal {
namespace {

constexpr JsonLimits kChunkLimits = {.max_bytes = size_t{4} << 20, .max_depth = 32};
constexpr size_t kMaxErrorBody = 2000;
constexpr int kOk = 200;

double seconds(HttpTime from, HttpTime to) { return std::chrono::duration<double>(to - from).count(); }

// The member, or null where it is absent or the value is no object.
const Json& member(const Json& value, const char* name) {
  static const Json kNull;
  if (!value.is_object()) return kNull;
  const auto found = value.find(name);
  return found == value.end() ? kNull : *found;
}

std::optional<int64_t> count_of(const Json& value) {
  constexpr uint64_t kMost = uint64_t{1} << 40;
  if (!value.is_number_unsigned() || value.get<uint64_t>() > kMost) return std::nullopt;
  return value.get<int64_t>();
}

void append_text(std::string& text, const Json& piece) {
  if (piece.is_string()) text += *piece.get_ptr<const std::string*>();
}

// The server's own words where it sent OpenAI's error shape.
std::string error_words(const Json& body) {
  const Json& message = member(member(body, "error"), "message");
  return message.is_string() ? message.get<std::string>() : dump_json(body);
}

}  // namespace

void ServeStreamReader::head(const HttpReply& head) {
  status_ = head.status;
  reason_ = head.reason;
}

void ServeStreamReader::body(std::string_view bytes, HttpTime when) {
  if (status_ != kOk) {
    error_body_.append(bytes.substr(0, kMaxErrorBody - std::min(kMaxErrorBody, error_body_.size())));
    return;
  }
  const Status pushed = events_.push(bytes);
  while (const auto event = events_.next()) take_event(event->data, when);
  if (!pushed) fail(pushed.error().message);
}

void ServeStreamReader::take_event(std::string_view data, HttpTime when) {
  if (data == "[DONE]" || !seen_.error.empty()) return;
  const auto chunk = parse_json(data, kChunkLimits);
  if (!chunk || !chunk->is_object()) return fail("an event that is no JSON object");
  if (chunk->contains("error")) return fail(error_words(*chunk));
  last_chunk_ = when;
  const Json& choices = member(*chunk, "choices");
  if (choices.is_array() && !choices.empty()) return take_choice(choices[0], when);
  const Json& usage = member(*chunk, "usage");
  if (const auto count = count_of(member(usage, "completion_tokens"))) {
    seen_.num_output_tokens = *count;
    seen_.num_server_prompt_tokens = count_of(member(usage, "prompt_tokens"));
  }
}

void ServeStreamReader::take_choice(const Json& choice, HttpTime when) {
  if (has_choice_) {
    seen_.itl_s.push_back(seconds(last_choice_, when));
  } else {
    seen_.ttft_s = seconds(sent_, when);
  }
  has_choice_ = true;
  last_choice_ = when;
  if (route_ == ServeRoute::kCompletions) return append_text(seen_.text, member(choice, "text"));
  const Json& delta = member(choice, "delta");
  append_text(seen_.text, member(delta, "content"));
  const Json& reasoning = member(delta, "reasoning_content");
  append_text(seen_.reasoning, reasoning.is_string() ? reasoning : member(delta, "reasoning"));
}

void ServeStreamReader::fail(std::string error) {
  if (seen_.error.empty()) seen_.error = std::move(error);
}

void ServeStreamReader::finish(const Status& end, ServeRecord& record) {
  if (!end) {
    fail(end.error().message);
  } else if (status_ != kOk) {
    const auto body = parse_json(error_body_, kChunkLimits);
    fail(fmt::format("{} {}", status_, body ? error_words(*body) : reason_));
  } else if (!has_choice_) {
    fail("the answer has no choices");
  }
  record.success = seen_.error.empty();
  record.error = std::move(seen_.error);
  record.text = std::move(seen_.text);
  record.reasoning = std::move(seen_.reasoning);
  if (!has_choice_) return;
  record.ttft_s = seen_.ttft_s;
  record.itl_s = std::move(seen_.itl_s);
  record.latency_s = seconds(sent_, route_ == ServeRoute::kChat ? last_chunk_ : last_choice_);
  record.num_output_tokens = seen_.num_output_tokens;
  record.num_server_prompt_tokens = seen_.num_server_prompt_tokens;
}

}  // namespace hadal
