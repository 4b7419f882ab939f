#include "server/prompts.h"
#include "server/routes.h"
#include "server/state.h"

namespace hadal {
namespace {

ApiExpected<Json> tokenize(const RouteCall& call) {
  const ServingContext& serving = *call.serving;
  const auto body = parse_body(call.exchange->request().body);
  if (!body) return tl::unexpected(body.error());
  auto request = parse_tokenize_request(*body, call.state->protocol_options(serving));
  if (!request) return tl::unexpected(request.error());
  if (const auto error = unknown_model(call, request->model)) return tl::unexpected(*error);
  std::string text = std::move(request->prompt);
  if (request->is_chat) {
    auto rendered = render_conversation(serving, request->conversation);
    if (!rendered) return tl::unexpected(rendered.error());
    text = std::move(rendered->text);
  }
  auto ids = serving.tokenizer->encode(text, {.add_special_tokens = request->add_special_tokens});
  if (!ids) return tl::unexpected(to_api_error(ids.error()));
  Json spellings;
  if (request->return_token_strs) {
    spellings = Json::array();
    for (const int32_t id : *ids) spellings.push_back(serving.tokenizer->token_string(id));
  }
  return Json{{"count", ids->size()},
              {"max_model_len", serving.facts.max_model_len},
              {"tokens", std::move(*ids)},
              {"token_strs", std::move(spellings)}};
}

ApiExpected<Json> detokenize(const RouteCall& call) {
  const auto body = parse_body(call.exchange->request().body);
  if (!body) return tl::unexpected(body.error());
  auto request = parse_detokenize_request(*body);
  if (!request) return tl::unexpected(request.error());
  if (const auto error = unknown_model(call, request->model)) return tl::unexpected(*error);
  const Tokenizer& tokenizer = *call.serving->tokenizer;
  for (const int32_t id : request->tokens) {
    if (id >= tokenizer.vocab_size()) {
      return tl::unexpected(bad_request("tokens", "Token id {} is out of vocabulary", id));
    }
  }
  return Json{{"prompt", tokenizer.decode(request->tokens, false)}};
}

void answer(const RouteCall& call, const ApiExpected<Json>& result) {
  call.exchange->respond(result ? json_response(*result) : api_error_response(result.error()));
}

}  // namespace

void handle_tokenize(const RouteCall& call) { answer(call, tokenize(call)); }
void handle_detokenize(const RouteCall& call) { answer(call, detokenize(call)); }

void handle_tokenizer_info(const RouteCall& call) {
  const Tokenizer& tokenizer = *call.serving->tokenizer;
  const auto or_null = [](const std::string& text) { return text.empty() ? Json(nullptr) : Json(text); };
  answer(call, Json{{"tokenizer_class", "PreTrainedTokenizerFast"},
                    {"bos_token", or_null(tokenizer.bos_token())},
                    {"eos_token", or_null(tokenizer.eos_token())},
                    {"pad_token", or_null(tokenizer.pad_token())},
                    {"add_bos_token", tokenizer.add_bos()},
                    {"model_max_length", call.serving->facts.max_model_len},
                    {"chat_template",
                     call.serving->chat_template ? Json(call.serving->chat_template->source()) : Json(nullptr)}});
}

}  // namespace hadal
