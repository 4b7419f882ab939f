// The bytes of a request.
#pragma once

#include <string>

#include "base/status.h"
#include "net/http_client.h"
#include "net/url.h"

namespace hadal {

// Head and body, for a connection that serves this one request. Error: kInvalidArgument when the method or a header
// would break the framing.
Expected<std::string> format_request(const HttpCall& call, const HttpUrl& url);

}  // namespace hadal
