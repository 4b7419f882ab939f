#include "server/routes.h"

#include <fmt/format.h>

#include "server/state.h"
#include "server/web_routes.h"

namespace hadal {

const std::vector<Route>& all_routes() {
  static const std::vector<Route> kRoutes = {
      {.method = "GET", .path = "/health", .handler = handle_health, .is_open = true, .while_loading = true},
      {.method = "GET", .path = "/health/ready", .handler = handle_health, .is_open = true, .while_loading = true},
      {.method = "GET", .path = "/health/live", .handler = handle_live, .is_open = true, .while_loading = true},
      {.method = "GET", .path = "/ping", .handler = handle_health, .is_open = true, .while_loading = true},
      {.method = "POST", .path = "/ping", .handler = handle_health, .is_open = true, .while_loading = true},
      {.method = "GET", .path = "/version", .handler = handle_version, .is_open = true, .while_loading = true},
      {.method = "GET",
       .path = "/metrics",
       .handler = handle_metrics,
       .is_prefix = true,
       .is_open = true,
       .while_loading = true},
      {.method = "GET", .path = "/load", .handler = handle_load, .while_loading = true},
      {.method = "GET", .path = "/hadal/certificate", .handler = handle_certificate},
      {.method = "GET", .path = "/v1/models", .handler = handle_models},
      {.method = "GET", .path = "/v1/models/", .handler = handle_model, .is_prefix = true},
      {.method = "POST", .path = "/v1/completions", .handler = handle_completions, .on_worker = true},
      {.method = "POST", .path = "/v1/chat/completions", .handler = handle_chat_completions, .on_worker = true},
      {.method = "POST", .path = "/v1/responses", .handler = handle_responses, .on_worker = true},
      {.method = "GET", .path = "/v1/responses/", .handler = handle_stored_response, .is_prefix = true},
      {.method = "DELETE", .path = "/v1/responses/", .handler = handle_delete_response, .is_prefix = true},
      {.method = "POST", .path = "/v1/responses/", .handler = handle_cancel_response, .is_prefix = true},
      {.method = "POST", .path = "/v1/messages", .handler = handle_messages, .on_worker = true},
      {.method = "POST", .path = "/v1/messages/count_tokens", .handler = handle_count_tokens, .on_worker = true},
      {.method = "POST", .path = "/invocations", .handler = handle_invocations, .on_worker = true},
      {.method = "POST", .path = "/v1/completions/render", .handler = handle_render_completion, .on_worker = true},
      {.method = "POST", .path = "/v1/chat/completions/render", .handler = handle_render_chat, .on_worker = true},
      {.method = "POST", .path = "/reset_prefix_cache", .handler = handle_reset_prefix_cache},
      {.method = "POST", .path = "/abort_requests", .handler = handle_abort_requests, .on_worker = true},
      {.method = "GET", .path = "/server_info", .handler = handle_server_info, .while_loading = true},
      {.method = "GET", .path = "/", .handler = handle_web_chat, .is_open = true, .while_loading = true},
      {.method = "GET", .path = "/openapi.json", .handler = handle_openapi, .while_loading = true},
      {.method = "GET", .path = "/docs", .handler = handle_docs, .while_loading = true},
      {.method = "POST", .path = "/tokenize", .handler = handle_tokenize, .on_worker = true},
      {.method = "POST", .path = "/detokenize", .handler = handle_detokenize, .on_worker = true},
      {.method = "GET", .path = "/tokenizer_info", .handler = handle_tokenizer_info},
  };
  return kRoutes;
}

std::optional<ApiError> unknown_model(const RouteCall& call, const std::string& name) {
  if (call.state->serves_model(name)) return std::nullopt;
  return ApiError{404, fmt::format("The model `{}` does not exist.", name), "model"};
}

}  // namespace hadal
