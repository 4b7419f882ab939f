#include "server/web_routes.h"

#include "server/api_error.h"
#include "server/state.h"

namespace hadal {

void handle_web_chat(const RouteCall& call) {
  if (!call.state->options.enable_web_chat) {
    return call.exchange->respond(api_error_response({404, "Not Found: /"}));
  }
  call.exchange->respond({.body = std::string(kWebChatPage),
                          .content_type = "text/html; charset=utf-8",
                          .headers = {{"Content-Security-Policy", std::string(kWebChatPolicy)},
                                      {"X-Content-Type-Options", "nosniff"},
                                      {"Referrer-Policy", "no-referrer"},
                                      {"Cross-Origin-Opener-Policy", "same-origin"},
                                      {"Cross-Origin-Resource-Policy", "same-origin"},
                                      {"Cache-Control", "no-cache"}}});
}

}  // namespace hadal
