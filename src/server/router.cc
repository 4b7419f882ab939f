#include "server/router.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/log.h"
#include "server/api_error.h"
#include "server/cors.h"
#include "server/state.h"

namespace hadal {
namespace {

constexpr size_t kMaxRequestIdBytes = 256;

bool matches(const Route& route, std::string_view path) {
  const std::string_view own = route.path;
  if (path == own) return true;
  if (!route.is_prefix || !path.starts_with(own)) return false;
  return own.ends_with('/') || path[own.size()] == '/';
}

// A HEAD request is answered as GET, without the body.
bool method_matches(const Route& route, std::string_view method) {
  return method == route.method || (method == "HEAD" && std::string_view(route.method) == "GET");
}

std::string allowed_methods(std::string_view path) {
  std::string list;
  const auto add = [&](std::string_view method) {
    if (list.find(method) == std::string::npos) list += (list.empty() ? "" : ", ") + std::string(method);
  };
  for (const Route& route : all_routes()) {
    if (!matches(route, path)) continue;
    add(route.method);
    if (std::string_view(route.method) == "GET") add("HEAD");
  }
  if (!list.empty()) add("OPTIONS");
  return list;
}

// Time does not depend on where the strings differ.
bool equal_in_constant_time(std::string_view secret, std::string_view given) {
  size_t difference = secret.size() ^ given.size();
  for (size_t i = 0; i < given.size(); ++i) {
    difference |= static_cast<unsigned char>(given[i]) ^
                  static_cast<unsigned char>(secret.empty() ? 0 : secret[i % secret.size()]);
  }
  return difference == 0;
}

// As OpenAI's clients send it, or as Anthropic's do. Every key is compared, whichever fits.
bool has_key(const ServerOptions& options, const HttpRequest& request) {
  std::string_view bearer = request.header("Authorization");
  static constexpr std::string_view kScheme = "Bearer ";
  const bool has_scheme =
      bearer.size() >= kScheme.size() && equals_ignoring_case(bearer.substr(0, kScheme.size()), kScheme);
  bearer = has_scheme ? bearer.substr(kScheme.size()) : std::string_view();
  const std::string_view plain = request.header("X-Api-Key");
  bool found = false;
  for (const std::string& key : options.api_keys) {
    if (key.empty()) continue;
    found = equal_in_constant_time(key, bearer) || found;
    found = equal_in_constant_time(key, plain) || found;
  }
  return found;
}

bool needs_key(const ServerOptions& options, const Route* route) {
  if (options.api_keys.empty()) return false;
  if (route == nullptr || !route->is_open) return true;
  return options.metrics_need_key && std::string_view(route->path) == "/metrics";
}

bool is_json(std::string_view content_type) {
  std::string_view type = content_type.substr(0, content_type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  return type.empty() || equals_ignoring_case(type, "application/json");
}

std::optional<ApiError> refusal(const Server::State& state, const HttpRequest& request, const Route& route) {
  if (state.draining && !route.while_loading) {
    return ApiError{.status = 503, .message = "The server is shutting down", .retry_after_s = 1};
  }
  if (!route.while_loading && state.context() == nullptr) {
    return ApiError{.status = 503, .message = "Loading model", .retry_after_s = 1};
  }
  if (route.on_worker && !is_json(request.header("Content-Type"))) {
    return ApiError{
        415, fmt::format("Unsupported Media Type: send application/json, not \"{}\"", request.header("Content-Type"))};
  }
  return std::nullopt;
}

void answer_unmatched(HttpExchange& exchange) {
  const HttpRequest& request = exchange.request();
  const std::string allowed = allowed_methods(request.path);
  if (request.method == "OPTIONS" && (!allowed.empty() || request.path == "*")) {
    exchange.respond({.status = 200, .headers = {{"Allow", allowed.empty() ? "GET, HEAD, POST, OPTIONS" : allowed}}});
    return;
  }
  if (allowed.empty()) return exchange.respond(api_error_response({404, "Not Found: " + request.path}));
  HttpResponse response = api_error_response({405, fmt::format("Method Not Allowed: {} {}, allowed: {}",
                                                               method_label(request.method), request.path, allowed)});
  response.headers.emplace_back("Allow", allowed);
  exchange.respond(std::move(response));
}

void call_guarded(const Route& route, const RouteCall& call) {
  try {
    route.handler(call);
  } catch (const std::exception& error) {  // a bug of ours must not take the server down
    log_error("{} {}, request {}: {}", route.method, route.path, request_id(call.exchange->request()), error.what());
    call.exchange->respond(api_error_response({500, "Internal server error"}));
  }
}

// "/x/v1/models" -> "/v1/models" for "/x" and "/x/".
void remove_root_path(std::string_view root, std::string* path) {
  while (root.ends_with('/')) root.remove_suffix(1);
  if (root.empty() || !path->starts_with(root)) return;
  if (path->size() == root.size()) {
    *path = "/";
  } else if ((*path)[root.size()] == '/') {
    path->erase(0, root.size());
  }
}

std::string random_id() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", random(), random());
}

}  // namespace

const Route* find_route(const HttpRequest& request) {
  for (const Route& route : all_routes()) {
    if (matches(route, request.path) && method_matches(route, request.method)) return &route;
  }
  return nullptr;
}

std::string_view request_id(const HttpRequest& request) {
  const std::string_view given = request.header("X-Request-Id");
  return given.empty() ? request.header(kMadeRequestId) : given;
}

std::string method_label(const std::string& method) {
  static constexpr const char* kKnown[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"};
  const bool known = std::find(std::begin(kKnown), std::end(kKnown), method) != std::end(kKnown);
  return known ? method : "other";
}

HttpHeaders prepare_request(const ServerOptions& options, HttpRequest& request) {
  remove_root_path(options.root_path, &request.path);
  const auto erase = [&](std::string_view name) {
    std::erase_if(request.headers, [&](const auto& header) { return equals_ignoring_case(header.first, name); });
  };
  erase(kMadeRequestId);  // ours alone
  std::string id(request.header("X-Request-Id"));
  const bool printable = std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < 0x7F; });
  if (id.empty() || id.size() > kMaxRequestIdBytes || !printable) {
    id = random_id();
    erase("X-Request-Id");
    request.headers.emplace_back(kMadeRequestId, id);
  }
  HttpHeaders headers = cors_headers(options.cors, request);
  headers.emplace_back("X-Request-Id", std::move(id));
  return headers;
}

void dispatch_request(const std::shared_ptr<Server::State>& state, std::shared_ptr<HttpExchange> exchange) {
  const HttpRequest& request = exchange->request();
  const Route* route = find_route(request);
  if (route != nullptr && route->on_worker) state->num_active.fetch_add(1);  // until the access report
  if (request.method != "OPTIONS" && needs_key(state->options, route) && !has_key(state->options, request)) {
    return exchange->respond(api_error_response(
        {401, "Unauthorized: a valid API key is needed, as Authorization: Bearer KEY or X-Api-Key: KEY"}));
  }
  if (route == nullptr) return answer_unmatched(*exchange);
  if (const auto error = refusal(*state, request, *route)) return exchange->respond(api_error_response(*error));
  RouteCall call{state, std::move(exchange), state->context()};
  if (!route->on_worker) return call_guarded(*route, call);
  state->workers.run([route, call = std::move(call)] {
    if (!call.exchange->disconnected()) call_guarded(*route, call);
  });
}

}  // namespace hadal
