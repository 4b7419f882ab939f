// Cross-origin headers: which web pages of other origins may call this server, and how.
#pragma once

#include "server/http_message.h"
#include "server/server.h"

namespace hadal {

// Headers for the answer to this request; none without an Origin, or for one that is not allowed. Those of a preflight
// (OPTIONS) say what may follow. With credentials browsers refuse "*", so that the origin itself is named.
HttpHeaders cors_headers(const CorsOptions& options, const HttpRequest& request);

}  // namespace hadal
