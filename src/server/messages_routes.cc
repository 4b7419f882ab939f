// /v1/messages and its token count.
#include "server/chat_start.h"
#include "server/messages_answer.h"
#include "server/messages_request.h"
#include "server/routes.h"
#include "server/state.h"

namespace hadal {
namespace {

ApiExpected<Json> chat_body(const RouteCall& call, bool count_only) {
  const auto body = parse_body(call.exchange->request().body);
  if (!body) return tl::unexpected(body.error());
  return chat_request_of_messages(*body, count_only);
}

ApiExpected<void> start_message(const RouteCall& call) {
  const auto body = chat_body(call, false);
  if (!body) return tl::unexpected(body.error());
  return start_chat(call, *body, "msg_",
                    [&](AnswerContext context, const PreparedChat& chat) -> ApiExpected<std::unique_ptr<Answer>> {
                      auto splitter = make_splitter(chat);
                      if (!splitter) return tl::unexpected(splitter.error());
                      return std::make_unique<MessagesAnswer>(std::move(context), std::move(*splitter));
                    });
}

ApiExpected<Json> count_tokens(const RouteCall& call) {
  const auto body = chat_body(call, true);
  if (!body) return tl::unexpected(body.error());
  const auto chat = prepare_chat(call, *body);
  if (!chat) return tl::unexpected(chat.error());
  return Json{{"input_tokens", chat->prompt.ids.size()}};
}

}  // namespace

void handle_messages(const RouteCall& call) {
  if (const auto started = start_message(call); !started) {
    call.exchange->respond(messages_error_response(started.error()));
  }
}

void handle_count_tokens(const RouteCall& call) {
  const auto counted = count_tokens(call);
  call.exchange->respond(counted ? json_response(*counted) : messages_error_response(counted.error()));
}

}  // namespace hadal
