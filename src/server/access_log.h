// One line per answered request, as vLLM's server writes it, with the request's id and duration behind.
#pragma once

#include <string>

#include "base/log_record.h"
#include "server/http.h"

namespace hadal {

// `127.0.0.1:5000 - "POST /v1/completions HTTP/1.1" 200 OK 12.3 ms id=7f3a`. Bytes of the path that are not printable
// ASCII are shown as %XX: a request must not write into a terminal.
std::string access_line(const HttpAccess& access);

// The same facts for logs in JSON.
std::vector<LogField> access_fields(const HttpAccess& access);

}  // namespace hadal
