#include <ctime>

#include "server/generation.h"
#include "server/routes.h"

namespace hadal {
namespace {

AnswerHead make_head(const RouteCall& call, const char* prefix, const GenerationParams& params) {
  const HttpRequest& request = call.exchange->request();
  std::string id(request.header("X-Request-Id"));
  if (id.empty()) id = params.request_id;
  if (id.empty()) id = std::string(request.header(kMadeRequestId));
  return {.id = prefix + id,
          .request_id = id,
          .model = params.model.empty() ? call.state->options.served_model_names.front() : params.model,
          .created = static_cast<int64_t>(std::time(nullptr))};
}

// Everything of a completion request up to the engine. Errors are the client's answer.
ApiExpected<void> start_completion(const RouteCall& call) {
  const ServingContext& serving = *call.serving;
  const auto body = parse_body(call.exchange->request().body);
  if (!body) return tl::unexpected(body.error());
  auto request = parse_completion_request(*body, call.state->protocol_options(serving));
  if (!request) return tl::unexpected(request.error());
  GenerationParams& params = request->params;
  if (const auto error = unknown_model(call, params.model)) return tl::unexpected(*error);
  if (params.echo && params.sampling.num_logprobs >= 0) {
    params.sampling.num_prompt_logprobs = std::max(params.sampling.num_prompt_logprobs, params.sampling.num_logprobs);
  }
  AnswerContext context{call.exchange, call.serving, make_head(call, "cmpl-", params), params, {}};
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

ApiExpected<void> start_chat(const RouteCall& call) {
  const ServingContext& serving = *call.serving;
  const ServerOptions& options = call.state->options;
  const auto body = parse_body(call.exchange->request().body);
  if (!body) return tl::unexpected(body.error());
  auto request = parse_chat_request(*body, call.state->protocol_options(serving));
  if (!request) return tl::unexpected(request.error());
  const GenerationParams& params = request->params;
  if (const auto error = unknown_model(call, params.model)) return tl::unexpected(*error);
  auto rendered = render_conversation(serving, request->conversation);
  if (!rendered) return tl::unexpected(rendered.error());
  auto prompt = prepare_prompt(serving, {.text = rendered->text}, params);
  if (!prompt) return tl::unexpected(prompt.error());
  auto sampling = complete_sampling(serving, params, static_cast<int64_t>(prompt->ids.size()));
  if (!sampling) return tl::unexpected(sampling.error());
  prompt->text = rendered->text;
  auto answer = make_chat_answer({call.exchange, call.serving, make_head(call, "chatcmpl-", params), params, {*prompt}},
                                 {.role = options.response_role,
                                  .reasoning_parser = options.reasoning_parser,
                                  .thinking = rendered->thinking,
                                  .include_reasoning = request->include_reasoning,
                                  .echo_text = echo_text(*request, *rendered, options.response_role)});
  if (!answer) return tl::unexpected(answer.error());
  std::make_shared<Generation>(call.state, std::move(*answer), std::vector{std::move(*sampling)})->start();
  return {};
}

void answer_error(const RouteCall& call, const ApiExpected<void>& started) {
  if (!started) call.exchange->respond(api_error_response(started.error()));
}

}  // namespace

void handle_completions(const RouteCall& call) { answer_error(call, start_completion(call)); }
void handle_chat_completions(const RouteCall& call) { answer_error(call, start_chat(call)); }

}  // namespace hadal
