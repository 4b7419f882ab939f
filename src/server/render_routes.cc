// What would be run: the prompt of a request as text and ids, without running it. For debugging templates.
#include "server/chat_start.h"
#include "server/routes.h"
#include "server/state.h"

namespace hadal {
namespace {

Json rendered_json(const RouteCall& call, const GenerationParams& params, std::vector<PreparedPrompt> prompts) {
  Json list = Json::array();
  for (PreparedPrompt& prompt : prompts) {
    // Ids have no text of their own.
    if (prompt.text.empty()) prompt.text = call.serving->tokenizer->decode(prompt.ids, false);
    list.push_back({{"prompt", std::move(prompt.text)},
                    {"prompt_tokens", prompt.ids.size()},
                    {"prompt_token_ids", std::move(prompt.ids)}});
  }
  return {{"object", "prompt.list"},
          {"model", params.model.empty() ? call.state->options.served_model_names.front() : params.model},
          {"max_model_len", call.serving->facts.max_model_len},
          {"prompts", std::move(list)}};
}

ApiExpected<Json> render_completion(const RouteCall& call, const Json& body) {
  const auto request = parse_completion_request(body, call.state->protocol_options(*call.serving));
  if (!request) return tl::unexpected(request.error());
  if (const auto error = unknown_model(call, request->params.model)) return tl::unexpected(*error);
  std::vector<PreparedPrompt> prompts;
  for (const PromptInput& input : request->prompts) {
    auto prompt = prepare_prompt(*call.serving, input, request->params);
    if (!prompt) return tl::unexpected(prompt.error());
    prompts.push_back(std::move(*prompt));
  }
  return rendered_json(call, request->params, std::move(prompts));
}

ApiExpected<Json> render_chat(const RouteCall& call, const Json& body) {
  auto chat = prepare_chat(call, body);
  if (!chat) return tl::unexpected(chat.error());
  return rendered_json(call, chat->request.params, {std::move(chat->prompt)});
}

void answer(const RouteCall& call, ApiExpected<Json> (*render)(const RouteCall&, const Json&)) {
  const auto body = parse_body(call.exchange->request().body);
  const auto result = body ? render(call, *body) : tl::unexpected(body.error());
  call.exchange->respond(result ? json_response(*result) : api_error_response(result.error()));
}

}  // namespace

void handle_render_completion(const RouteCall& call) { answer(call, render_completion); }
void handle_render_chat(const RouteCall& call) { answer(call, render_chat); }

}  // namespace hadal
