#include "server/request_watch.h"

#include <fmt/ranges.h>

#include "base/log.h"
#include "base/utf8.h"
#include "server/generation.h"

namespace hadal {
namespace {

// The first characters, quoted, on one line.
std::string excerpt(std::string_view text, int64_t max_characters) {
  size_t size = 0;
  for (int64_t i = 0; i < max_characters && size < text.size(); ++i) size += decode_utf8(text.substr(size)).num_bytes;
  return dump_json(std::string(text.substr(0, size))) + (size < text.size() ? "..." : "");
}

template <typename T>
std::string value_or_none(const std::optional<T>& value) {
  return value ? fmt::format("{}", *value) : "None";
}

std::string describe_sampling(const GenerationParams& params, const SamplingParams& sampling) {
  return fmt::format(
      "SamplingParams(n={}, presence_penalty={}, frequency_penalty={}, repetition_penalty={}, temperature={}, "
      "top_p={}, top_k={}, min_p={}, seed={}, stop={}, stop_token_ids={}, ignore_eos={}, max_tokens={}, min_tokens={}, "
      "logprobs={}, prompt_logprobs={}, stream={}, priority={})",
      params.n, sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty,
      sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p, value_or_none(sampling.seed),
      dump_json(params.stop), sampling.stop_token_ids, sampling.ignore_eos, sampling.max_tokens, sampling.min_tokens,
      sampling.num_logprobs < 0 ? "None" : std::to_string(sampling.num_logprobs),
      sampling.num_prompt_logprobs < 0 ? "None" : std::to_string(sampling.num_prompt_logprobs), params.stream,
      params.priority);
}

// The error as the last event of a stream that began with a sign of life. Completions and chat streams end with [DONE];
// others name their events.
std::string as_last_event(const HttpResponse& response, bool names_events) {
  if (names_events) return "event: error\ndata: " + response.body + "\n\n";
  return "data: " + response.body + "\n\ndata: [DONE]\n\n";
}

void keep_stream_alive(const ServerOptions& options, const AnswerContext& context) {
  const std::string& id = context.head.id;
  const bool names_events = !id.starts_with("cmpl-") && !id.starts_with("chatcmpl-");
  context.exchange->keep_alive(
      {.interval = options.sse_heartbeat,
       .head = {.content_type = "text/event-stream; charset=utf-8",
                .headers = {{"Cache-Control", "no-cache"},
                            {"X-Accel-Buffering", "no"},
                            {"X-Request-Id", context.head.request_id}}},
       .filler = ": waiting\n\n",
       .late_answer = [names_events](const HttpResponse& answer) { return as_last_event(answer, names_events); }});
}

}  // namespace

std::string describe_request(const AnswerContext& context, const std::vector<SamplingParams>& sampling,
                             int64_t max_log_len) {
  size_t num_tokens = 0;
  for (const PreparedPrompt& prompt : context.prompts) num_tokens += prompt.ids.size();
  std::string what = fmt::format("{} tokens", num_tokens);
  if (context.prompts.size() > 1) what += fmt::format(" in {} prompts", context.prompts.size());
  if (max_log_len > 0) {
    const PreparedPrompt& first = context.prompts.front();
    const std::string text = first.text.empty() ? context.serving->tokenizer->decode(first.ids, false) : first.text;
    what += ", " + excerpt(text, max_log_len);
  }
  return fmt::format("Received request {}: prompt: {}, params: {}", context.head.id, what,
                     describe_sampling(context.params, sampling.front()));
}

void watch_request(const Server::State& state, const std::shared_ptr<Generation>& generation,
                   const AnswerContext& context, const std::vector<SamplingParams>& sampling) {
  const ServerOptions& options = state.options;
  if (options.log_requests) log_info("{}", describe_request(context, sampling, options.max_log_len));
  if (options.sse_heartbeat.count() > 0 && context.params.stream) keep_stream_alive(options, context);
  if (options.request_timeout.count() <= 0) return;
  context.exchange->set_deadline(
      context.exchange->request().arrival + options.request_timeout,
      [weak = std::weak_ptr<Generation>(generation), limit = options.request_timeout] {
        if (const auto running = weak.lock()) {
          running->fail_later({504, fmt::format("The request did not end within {} s", limit.count() / 1000.0)});
        }
      });
}

}  // namespace hadal
