#include "server/openapi.h"
#include "server/routes.h"
#include "server/state.h"

namespace hadal {
namespace {

bool docs_are_off(const RouteCall& call) {
  if (call.state->options.enable_api_docs) return false;
  call.exchange->respond(api_error_response({404, "Not Found: the API's description is switched off"}));
  return true;
}

}  // namespace

void handle_openapi(const RouteCall& call) {
  if (!docs_are_off(call)) call.exchange->respond(json_response(openapi_document(call.state->options.version)));
}

void handle_docs(const RouteCall& call) {
  if (docs_are_off(call)) return;
  call.exchange->respond({.body = api_docs_page(call.state->options.version),
                          .content_type = "text/html; charset=utf-8",
                          .headers = {{"Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"}}});
}

}  // namespace hadal
