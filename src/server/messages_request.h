// Requests of Anthropic's Messages API as chat requests.
#pragma once

#include "base/json.h"
#include "server/api_error.h"

namespace hadal {

// The body of a chat request. `count_only`: for count_tokens, which has no max_tokens. Errors: 400 naming the field or
// block: wrong types, images and documents, tools that run on the server's side.
ApiExpected<Json> chat_request_of_messages(const Json& body, bool count_only);

// Errors in this API's shape.
Json messages_error_body(const ApiError& error);
HttpResponse messages_error_response(const ApiError& error);

}  // namespace hadal
