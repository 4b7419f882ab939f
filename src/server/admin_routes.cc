// Routes for operators: dropping the prefix cache, aborting requests, the running configuration.
#include <algorithm>

#include "server/field_reader.h"
#include "server/generation.h"
#include "server/routes.h"
#include "server/state.h"

namespace hadal {
namespace {

constexpr size_t kMaxAbortedIds = 65536;
constexpr int kAbortedStatus = 499;  // no client retries it

std::vector<std::shared_ptr<Generation>> find_generations(Server::State& state, const std::vector<std::string>& ids) {
  std::vector<std::shared_ptr<Generation>> found;
  const std::lock_guard lock(state.mutex);
  for (const auto& [raw, weak] : state.generations) {
    auto generation = weak.lock();
    if (!generation) continue;
    const AnswerHead& head = generation->head();
    const bool named =
        std::any_of(ids.begin(), ids.end(), [&](const auto& id) { return id == head.id || id == head.request_id; });
    if (named) found.push_back(std::move(generation));
  }
  return found;
}

ApiExpected<size_t> abort_requests(const RouteCall& call) {
  const auto body = parse_body(call.exchange->request().body);
  if (!body) return tl::unexpected(body.error());
  FieldReader reader(*body);
  std::vector<std::string> ids;
  if (reader.find("request_ids") == nullptr) reader.fail(bad_request("request_ids", "request_ids is required"));
  reader.strings("request_ids", kMaxAbortedIds, 4096, true, &ids);
  if (reader.error()) return tl::unexpected(*reader.error());
  const auto found = find_generations(*call.state, ids);
  for (const auto& generation : found) {
    generation->fail_later({.status = kAbortedStatus, .message = "The request was aborted through /abort_requests"});
  }
  return found.size();
}

}  // namespace

void handle_reset_prefix_cache(const RouteCall& call) {
  call.serving->engine->reset_prefix_cache();
  call.exchange->respond({});
}

void handle_abort_requests(const RouteCall& call) {
  const auto aborted = abort_requests(call);
  call.exchange->respond(aborted ? json_response({{"aborted", *aborted}}) : api_error_response(aborted.error()));
}

void handle_server_info(const RouteCall& call) {
  if (!call.state->options.dev_mode) {
    return call.exchange->respond(
        api_error_response({404, "Not Found: /server_info is part of the development mode, which is off"}));
  }
  call.exchange->respond(json_response({{"vllm_config", call.state->options.explained_config}}));
}

}  // namespace hadal
