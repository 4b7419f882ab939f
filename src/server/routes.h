// The handlers behind the route table (router.h); the table itself is in routes.cc.
#pragma once

#include "server/router.h"

namespace hadal {

// generate_routes.cc; on worker threads.
void handle_completions(const RouteCall& call);
void handle_chat_completions(const RouteCall& call);

// token_routes.cc; on worker threads, but the last.
void handle_tokenize(const RouteCall& call);
void handle_detokenize(const RouteCall& call);
void handle_tokenizer_info(const RouteCall& call);

// info_routes.cc; on IO threads.
void handle_models(const RouteCall& call);
void handle_model(const RouteCall& call);
void handle_health(const RouteCall& call);
void handle_version(const RouteCall& call);
void handle_metrics(const RouteCall& call);
void handle_load(const RouteCall& call);
void handle_certificate(const RouteCall& call);

// 404 unless the name is served.
std::optional<ApiError> unknown_model(const RouteCall& call, const std::string& name);

}  // namespace hadal
