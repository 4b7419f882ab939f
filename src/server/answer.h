// How a generation is told to the client: as one JSON body or as server-sent events. IO thread only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/chat_events.h"
#include "server/choice_text.h"
#include "server/http.h"
#include "server/prompts.h"
#include "server/server.h"
#include "server/token_constraint.h"

namespace hadal {

struct Usage {
  int64_t num_prompt_tokens = 0;
  int64_t num_completion_tokens = 0;
  int64_t num_cached_tokens = 0;
  int64_t num_reasoning_tokens = -1;  // negative: not told
};
Json usage_json(const Usage& usage);

// Facts of the whole response.
struct AnswerHead {
  std::string id;  // "cmpl-<request_id>"
  std::string request_id;
  std::string model;
  int64_t created = 0;  // Unix seconds
};

struct AnswerContext {
  std::shared_ptr<HttpExchange> exchange;
  std::shared_ptr<const ServingContext> serving;
  AnswerHead head;
  GenerationParams params;
  std::vector<PreparedPrompt> prompts;               // choice = prompt * n + sample
  std::shared_ptr<const ConstraintPlan> constraint;  // of every choice; null: none
};

// Base of the formats. Begins the stream with the first event; before that an error is a plain JSON answer.
class Answer {
 public:
  explicit Answer(AnswerContext context);
  virtual ~Answer() = default;

  // A choice got more. `usage`: of this choice so far.
  virtual void on_delta(size_t choice, ChoiceDelta&& delta, const Usage& usage) = 0;
  // All choices have ended.
  void finish(const Usage& usage);
  void fail(const ApiError& error);

  const AnswerContext& context() const { return context_; }

 protected:
  virtual const char* chunk_object() const { return ""; }
  virtual Json body(const Usage& usage) = 0;  // not streamed
  virtual void add_usage_details(Usage*) const {}
  // The last events of a stream: the usage chunk if asked for, or the error; then [DONE].
  virtual void end_stream(const Usage& usage);
  virtual void end_stream_with(const ApiError& error);
  virtual HttpResponse error_response(const ApiError& error) const { return api_error_response(error); }

  const GenerationParams& params() const { return context_.params; }
  const Tokenizer& tokenizer() const { return *context_.serving->tokenizer; }
  const PreparedPrompt& prompt_of(size_t choice) const;
  size_t num_choices() const;
  // id, object, created, model: the begin of every chunk and body.
  Json head_json(const char* object) const;
  // One chunk with one choice; usage as the request asked. `extras`: more fields of the chunk.
  void send_chunk(Json choice, const Usage& usage, bool null_usage, const Json& extras = Json::object());
  // `name` gives the event an `event:` line, which the chat and completions streams must not have.
  void send_event(const std::string& json, std::string_view name = {});

 private:
  void respond(HttpResponse response);
  std::pair<std::string, std::string> request_id_header() const;

  AnswerContext context_;
  bool stream_started_ = false;
};

std::unique_ptr<Answer> make_completion_answer(AnswerContext context);

struct ChatAnswerOptions {
  std::string role;
  ChatTextOptions text;
  bool include_reasoning = true;
  std::string reasoning_field = "both";  // as in ServerOptions
  std::string echo_text;                 // precedes the content
};
// Errors: 400 (unknown parser names).
ApiExpected<std::unique_ptr<Answer>> make_chat_answer(AnswerContext context, ChatAnswerOptions options);

}  // namespace hadal
