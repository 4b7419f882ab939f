// One HTTP GET, for reading a server's metrics.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "base/status.h"

namespace hadal {

// url: http://HOST[:PORT][/PATH], no TLS. Returns the body of a 200 answer. Errors: kInvalidArgument (url),
// kUnavailable (nobody answers in time), kResourceExhausted (more than max_bytes), kCorrupt, kNotFound (another
// status).
Expected<std::string> http_get(const std::string& url, std::chrono::milliseconds timeout, size_t max_bytes);

}  // namespace hadal
