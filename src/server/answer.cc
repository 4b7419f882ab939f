#include "server/answer.h"

namespace hadal {

Json usage_json(const Usage& usage) {
  Json json = {{"prompt_tokens", usage.num_prompt_tokens},
               {"completion_tokens", usage.num_completion_tokens},
               {"total_tokens", usage.num_prompt_tokens + usage.num_completion_tokens},
               {"prompt_tokens_details", {{"cached_tokens", usage.num_cached_tokens}}}};
  if (usage.num_reasoning_tokens >= 0) {
    json["completion_tokens_details"] = {{"reasoning_tokens", usage.num_reasoning_tokens}};
  }
  return json;
}

Answer::Answer(AnswerContext context) : context_(std::move(context)) {}

const PreparedPrompt& Answer::prompt_of(size_t choice) const {
  return context_.prompts[choice / static_cast<size_t>(params().n)];
}

size_t Answer::num_choices() const { return context_.prompts.size() * static_cast<size_t>(params().n); }

Json Answer::head_json(const char* object) const {
  return {
      {"id", context_.head.id}, {"object", object}, {"created", context_.head.created}, {"model", context_.head.model}};
}

std::pair<std::string, std::string> Answer::request_id_header() const {
  return {"X-Request-Id", context_.head.request_id};
}

void Answer::respond(HttpResponse response) {
  response.headers.push_back(request_id_header());
  context_.exchange->respond(std::move(response));
}

void Answer::send_event(const std::string& json, std::string_view name) {
  if (!stream_started_) {
    stream_started_ = true;
    context_.exchange->start_stream(
        {.content_type = "text/event-stream; charset=utf-8",
         .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}, request_id_header()}});
  }
  const std::string event_line = name.empty() ? "" : fmt::format("event: {}\n", name);
  context_.exchange->write(event_line + "data: " + json + "\n\n");
}

void Answer::send_chunk(Json choice, const Usage& usage, bool null_usage, const Json& extras) {
  Json chunk = head_json(chunk_object());
  chunk["choices"] = Json::array({std::move(choice)});
  for (const auto& [name, value] : extras.items()) chunk[name] = value;
  if (params().continuous_usage_stats) {
    chunk["usage"] = usage_json(usage);
  } else if (null_usage) {
    chunk["usage"] = nullptr;
  }
  send_event(dump_json(chunk));
}

void Answer::finish(const Usage& usage) {
  Usage detailed = usage;
  add_usage_details(&detailed);
  if (!params().stream) {
    respond(json_response(body(detailed)));
    return;
  }
  end_stream(detailed);
  context_.exchange->finish();
}

void Answer::end_stream(const Usage& usage) {
  if (params().include_usage) {
    Json chunk = head_json(chunk_object());
    chunk["choices"] = Json::array();
    chunk["usage"] = usage_json(usage);
    send_event(dump_json(chunk));
  }
  send_event("[DONE]");
}

void Answer::fail(const ApiError& error) {
  if (!stream_started_) {
    respond(error_response(error));
    return;
  }
  end_stream_with(error);
  context_.exchange->finish();
}

void Answer::end_stream_with(const ApiError& error) {
  send_event(dump_json(api_error_body(error)));
  send_event("[DONE]");
}

}  // namespace hadal
