// Which handler answers which path, and on which conditions.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/http.h"
#include "server/server.h"

namespace hadal {

// What a handler may use. `serving` is null on routes that work while loading.
struct RouteCall {
  std::shared_ptr<Server::State> state;
  std::shared_ptr<HttpExchange> exchange;
  std::shared_ptr<const ServingContext> serving;
};

struct Route {
  const char* method;
  const char* path;
  void (*handler)(const RouteCall&);
  bool is_prefix = false;      // also everything below `path`
  bool is_open = false;        // needs no API key
  bool while_loading = false;  // works before attach() and while draining
  bool on_worker = false;      // too slow for an IO thread; counted as an active request, needs a JSON body
};

const std::vector<Route>& all_routes();

// Checks key, route, method, readiness and content type, then calls the handler.
void dispatch_request(const std::shared_ptr<Server::State>& state, std::shared_ptr<HttpExchange> exchange);

// Null when no route has this path and method.
const Route* find_route(const HttpRequest& request);

// The method as a label value: "other" for those that nobody has heard of.
std::string method_label(const std::string& method);

// The request header that carries the id which the server made because the client gave none.
inline constexpr char kMadeRequestId[] = "X-Hadal-Request-Id";

// The client's, or the one made for it.
std::string_view request_id(const HttpRequest& request);

// Takes the root path off, and gives the request an id (kMadeRequestId) if it has none. Returns the CORS and request-id
// headers of the answer.
HttpHeaders prepare_request(const ServerOptions& options, HttpRequest& request);

}  // namespace hadal
