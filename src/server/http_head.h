// The bytes before a response's body.
#pragma once

#include <cstdint>
#include <string>

#include "server/http_message.h"

namespace hadal {

enum class HttpFraming { kLength, kChunked, kUntilClose };

struct HttpHead {
  bool http_1_1 = true;
  bool keep_alive = true;
  HttpFraming framing = HttpFraming::kLength;
  size_t content_length = 0;  // kLength
};

// Status line, headers and the empty line. Control characters in header values become spaces.
std::string format_head(const HttpResponse& response, const HttpHead& head);

// "hello" -> "5\r\nhello\r\n".
std::string format_chunk(std::string_view bytes);

}  // namespace hadal
