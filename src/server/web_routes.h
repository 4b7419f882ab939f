// The web chat at `/`: one page without outside assets, made from web/ when the project is built
// (cmake/embed_web_chat.cmake).
#pragma once

#include <string_view>

#include "server/router.h"

namespace hadal {

// UTF-8 HTML with its style and script inside.
extern const std::string_view kWebChatPage;
// Its Content-Security-Policy: only that style and that script, requests to this server alone, no frames, no strings
// turned into markup.
extern const std::string_view kWebChatPolicy;

// On IO threads. 404 when ServerOptions::enable_web_chat is off.
void handle_web_chat(const RouteCall& call);

}  // namespace hadal
