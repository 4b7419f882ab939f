// The handlers behind the route table (router.h); the table itself is in routes.cc.
#pragma once

#include "server/router.h"

namespace hadal {

// generate_routes.cc; on worker threads.
void handle_completions(const RouteCall& call);
void handle_chat_completions(const RouteCall& call);
void handle_invocations(const RouteCall& call);  // chat when the body has `messages`, else completion

// render_routes.cc; on worker threads.
void handle_render_completion(const RouteCall& call);
void handle_render_chat(const RouteCall& call);

// responses_routes.cc; on worker threads, but the next three.
void handle_responses(const RouteCall& call);
void handle_stored_response(const RouteCall& call);
void handle_delete_response(const RouteCall& call);
void handle_cancel_response(const RouteCall& call);

// messages_routes.cc; on worker threads.
void handle_messages(const RouteCall& call);
void handle_count_tokens(const RouteCall& call);

// admin_routes.cc.
void handle_reset_prefix_cache(const RouteCall& call);
void handle_abort_requests(const RouteCall& call);  // on worker threads
void handle_server_info(const RouteCall& call);

// openapi_routes.cc; 404 when switched off.
void handle_openapi(const RouteCall& call);
void handle_docs(const RouteCall& call);

// token_routes.cc; on worker threads, but the last.
void handle_tokenize(const RouteCall& call);
void handle_detokenize(const RouteCall& call);
void handle_tokenizer_info(const RouteCall& call);

// info_routes.cc; on IO threads.
void handle_models(const RouteCall& call);
void handle_model(const RouteCall& call);
void handle_health(const RouteCall& call);
void handle_live(const RouteCall& call);
void handle_version(const RouteCall& call);
void handle_metrics(const RouteCall& call);
void handle_load(const RouteCall& call);
void handle_certificate(const RouteCall& call);

// 404 unless the name is served.
std::optional<ApiError> unknown_model(const RouteCall& call, const std::string& name);

}  // namespace hadal
