// /v1/responses: making one, and coming back to stored ones.
#include <fmt/format.h>

#include <random>

#include "server/chat_start.h"
#include "server/responses_answer.h"
#include "server/responses_request.h"
#include "server/routes.h"
#include "server/state.h"

namespace hadal {
namespace {

constexpr std::string_view kPrefix = "/v1/responses/";
constexpr std::string_view kCancel = "/cancel";

std::string new_response_id() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("resp_{:016x}{:016x}", random(), random());
}

ApiError not_found(const std::string& id, const char* param) {
  return {404, fmt::format("Response \"{}\" is not stored here: unknown, or forgotten meanwhile", id.substr(0, 128)),
          param};
}

// Keeps the response and the conversation that leads to it.
ResponsesAnswer::OnDone store_when_done(std::shared_ptr<Server::State> state, Json messages) {
  return [state = std::move(state), messages = std::move(messages)](const Json& response) {
    Json conversation = messages;
    if (auto answer = messages_of_items(response["output"])) {
      conversation.insert(conversation.end(), answer->begin(), answer->end());
    }
    state->responses.put(response["id"], {response, std::move(conversation)});
  };
}

ApiExpected<void> start_response(const RouteCall& call) {
  const auto body = parse_body(call.exchange->request().body);
  if (!body) return tl::unexpected(body.error());
  auto request = parse_responses_request(*body);
  if (!request) return tl::unexpected(request.error());
  Json earlier = Json::array();
  if (!request->previous_response_id.empty()) {
    const auto previous = call.state->responses.find(request->previous_response_id);
    if (!previous) return tl::unexpected(not_found(request->previous_response_id, "previous_response_id"));
    earlier = previous->messages;
  }
  return start_chat(call, chat_request_of(*request, earlier), "resp_",
                    [&](AnswerContext context, const PreparedChat& chat) -> ApiExpected<std::unique_ptr<Answer>> {
                      auto splitter = make_splitter(chat);
                      if (!splitter) return tl::unexpected(splitter.error());
                      context.head.id = new_response_id();
                      ResponsesAnswer::OnDone on_done;
                      if (request->store) {
                        earlier.insert(earlier.end(), request->messages.begin(), request->messages.end());
                        on_done = store_when_done(call.state, std::move(earlier));
                      }
                      return std::make_unique<ResponsesAnswer>(std::move(context), std::move(*splitter),
                                                               std::move(request->echo), std::move(on_done));
                    });
}

std::string id_of(const RouteCall& call) { return call.exchange->request().path.substr(kPrefix.size()); }

}  // namespace

void handle_responses(const RouteCall& call) {
  if (const auto started = start_response(call); !started) {
    call.exchange->respond(api_error_response(started.error()));
  }
}

void handle_stored_response(const RouteCall& call) {
  const auto stored = call.state->responses.find(id_of(call));
  call.exchange->respond(stored ? json_response(stored->body) : api_error_response(not_found(id_of(call), "")));
}

void handle_delete_response(const RouteCall& call) {
  const std::string id = id_of(call);
  if (!call.state->responses.erase(id)) return call.exchange->respond(api_error_response(not_found(id, "")));
  call.exchange->respond(json_response({{"id", id}, {"object", "response"}, {"deleted", true}}));
}

void handle_cancel_response(const RouteCall& call) {
  std::string id = id_of(call);
  if (!id.ends_with(kCancel)) {
    return call.exchange->respond(api_error_response({404, "Not Found: " + call.exchange->request().path}));
  }
  id.resize(id.size() - kCancel.size());
  if (!call.state->responses.find(id)) return call.exchange->respond(api_error_response(not_found(id, "")));
  call.exchange->respond(
      api_error_response({400,
                          "Only background responses can be cancelled; this one has ended. Closing its connection "
                          "cancels a running one"}));
}

}  // namespace hadal
