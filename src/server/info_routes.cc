#include <ctime>

#include "server/routes.h"
#include "server/state.h"

namespace hadal {
namespace {

constexpr auto kIoThreadLimit = std::chrono::seconds(20);  // their longest task takes milliseconds

Json model_card(const RouteCall& call, const std::string& name) {
  const auto now = static_cast<int64_t>(std::time(nullptr));
  return {{"id", name},
          {"object", "model"},
          {"created", now},
          {"owned_by", "vllm"},
          {"root", call.serving->facts.root},
          {"parent", nullptr},
          {"max_model_len", call.serving->facts.max_model_len},
          {"permission", Json::array({{{"id", "modelperm-hadal"},
                                       {"object", "model_permission"},
                                       {"created", now},
                                       {"allow_create_engine", false},
                                       {"allow_sampling", true},
                                       {"allow_logprobs", true},
                                       {"allow_search_indices", false},
                                       {"allow_view", true},
                                       {"allow_fine_tuning", false},
                                       {"organization", "*"},
                                       {"group", nullptr},
                                       {"is_blocking", false}}})}};
}

// Why a request sent now would not be served; "" when it would.
std::string why_unhealthy(Server::State& state) {
  if (state.draining) return "draining";
  const auto serving = state.context();
  if (serving == nullptr) return "loading";
  if (const std::string trouble = serving->engine->trouble(); !trouble.empty()) return trouble;
  if (!serving->engine->healthy()) return "engine failed";
  return state.stalled() ? "engine stalled" : "";
}

}  // namespace

void handle_models(const RouteCall& call) {
  Json cards = Json::array();
  for (const std::string& name : call.state->options.served_model_names) cards.push_back(model_card(call, name));
  call.exchange->respond(json_response({{"object", "list"}, {"data", std::move(cards)}}));
}

void handle_model(const RouteCall& call) {
  const std::string name = call.exchange->request().path.substr(std::string_view("/v1/models/").size());
  if (name.empty()) return handle_models(call);
  if (const auto error = unknown_model(call, name)) return call.exchange->respond(api_error_response(*error));
  call.exchange->respond(json_response(model_card(call, name)));
}

void handle_health(const RouteCall& call) {
  const std::string reason = why_unhealthy(*call.state);
  if (reason.empty()) return call.exchange->respond({});
  Json body = api_error_body({503, "Not ready: " + reason});
  body["status"] = reason;
  if (reason == "loading") {
    const std::lock_guard lock(call.state->mutex);
    body["progress"] = call.state->loading_fraction;
    body["step"] = call.state->loading_what;
  }
  HttpResponse response = json_response(body);
  response.status = 503;
  response.headers.emplace_back("Retry-After", "1");
  call.exchange->respond(std::move(response));
}

// Says that the process runs and its IO threads turn, whatever the model does: what to restart it by.
void handle_live(const RouteCall& call) {
  const HttpServer* http = call.state->started_http;
  if (http == nullptr || http->responsive(kIoThreadLimit)) return call.exchange->respond({});
  call.exchange->respond(api_error_response({503, "Not alive: an IO thread hangs"}));
}

void handle_version(const RouteCall& call) {
  call.exchange->respond(json_response({{"version", call.state->options.version}}));
}

void handle_metrics(const RouteCall& call) {
  call.state->metrics()
      .registry()
      .gauge("hadal_ready", "1 while /health answers 200.")
      .set(why_unhealthy(*call.state).empty() ? 1 : 0);
  call.exchange->respond(
      {.body = call.state->metrics().registry().text(), .content_type = "text/plain; version=0.0.4; charset=utf-8"});
}

void handle_load(const RouteCall& call) {
  call.exchange->respond(json_response({{"server_load", call.state->num_active.load()}}));
}

void handle_certificate(const RouteCall& call) {
  const Json& certificate = call.serving->facts.certificate;
  if (!certificate.is_null()) return call.exchange->respond(json_response(certificate));
  call.exchange->respond(api_error_response(
      {404, "There is no certificate for this model and these numerics: `hadal certify` makes one"}));
}

}  // namespace hadal
