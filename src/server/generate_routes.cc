#include "server/chat_start.h"
#include "server/generation.h"
#include "server/routes.h"

namespace hadal {
namespace {

// Everything of a completion request up to the engine. Errors are the client's answer.
ApiExpected<void> start_completion(const RouteCall& call, const Json& body) {
  const ServingContext& serving = *call.serving;
  auto request = parse_completion_request(body, call.state->protocol_options(serving));
  if (!request) return tl::unexpected(request.error());
  GenerationParams& params = request->params;
  if (const auto error = unknown_model(call, params.model)) return tl::unexpected(*error);
  tell_unknown_fields(params);
  if (params.echo && params.sampling.num_logprobs >= 0) {
    params.sampling.num_prompt_logprobs = std::max(params.sampling.num_prompt_logprobs, params.sampling.num_logprobs);
  }
  auto grammar = call.state->grammars.structured_output(params.structured_output);
  if (!grammar) return tl::unexpected(grammar.error());
  AnswerContext context{call.exchange, call.serving, make_head(call, "cmpl-", params), params, {}, nullptr};
  context.constraint = make_constraint_plan(call, std::move(*grammar));
  std::vector<SamplingParams> sampling;
  for (const PromptInput& input : request->prompts) {
    auto prompt = prepare_prompt(serving, input, params);
    if (!prompt) return tl::unexpected(prompt.error());
    auto complete = complete_sampling(serving, params, static_cast<int64_t>(prompt->ids.size()));
    if (!complete) return tl::unexpected(complete.error());
    context.prompts.push_back(std::move(*prompt));
    sampling.push_back(std::move(*complete));
  }
  std::make_shared<Generation>(call.state, make_completion_answer(std::move(context)), std::move(sampling))->start();
  return {};
}

// What `echo` shows: the text that the answer continues, when it is of the answering role.
std::string echo_text(const ChatRequest& request, const RenderedConversation& rendered, const std::string& role) {
  if (!request.params.echo || !request.conversation.continue_final_message) return "";
  const Json& last = request.conversation.messages.back();
  return last.value("role", "") == role ? rendered.final_message : "";
}

ApiExpected<std::unique_ptr<Answer>> chat_answer(const ServerOptions& options, AnswerContext context,
                                                 const PreparedChat& chat) {
  const auto& role = options.response_role;
  return make_chat_answer(std::move(context), {.role = role,
                                               .text = chat.text,
                                               .include_reasoning = chat.request.include_reasoning,
                                               .reasoning_field = options.reasoning_field,
                                               .echo_text = echo_text(chat.request, chat.rendered, role)});
}

ApiExpected<void> start_chat_completion(const RouteCall& call, const Json& body) {
  return start_chat(call, body, "chatcmpl-", [&](AnswerContext context, const PreparedChat& chat) {
    return chat_answer(call.state->options, std::move(context), chat);
  });
}

ApiExpected<void> start_invocation(const RouteCall& call, const Json& body) {
  const bool is_chat = body.is_object() && body.contains("messages");
  return is_chat ? start_chat_completion(call, body) : start_completion(call, body);
}

void start(const RouteCall& call, ApiExpected<void> (*start_request)(const RouteCall&, const Json&)) {
  const auto body = parse_body(call.exchange->request().body);
  const auto started = body ? start_request(call, *body) : tl::unexpected(body.error());
  if (!started) call.exchange->respond(api_error_response(started.error()));
}

}  // namespace

void handle_completions(const RouteCall& call) { start(call, start_completion); }
void handle_chat_completions(const RouteCall& call) { start(call, start_chat_completion); }
void handle_invocations(const RouteCall& call) { start(call, start_invocation); }

}  // namespace hadal
