// Errors as clients of the OpenAI API read them: {"error": {"message", "type", "param", "code"}}.
#pragma once

#include <string>
#include <tl/expected.hpp>

#include "base/json.h"
#include "base/status.h"
#include "server/http_message.h"

namespace hadal {

struct ApiError {
  int status = 400;
  std::string message;
  std::string param;      // the request field at fault; "" is null on the wire
  int retry_after_s = 0;  // > 0: sent as Retry-After
};

template <typename T>
using ApiExpected = tl::expected<T, ApiError>;

template <typename... Args>
ApiError bad_request(std::string param, fmt::format_string<Args...> format, Args&&... args) {
  return {400, fmt::format(format, std::forward<Args>(args)...), std::move(param)};
}

// The HTTP status that an error of the layers below means to a client.
ApiError to_api_error(const Error& error);

// "BadRequestError", "overloaded_error", ...
const char* api_error_type(int status);
Json api_error_body(const ApiError& error);
HttpResponse api_error_response(const ApiError& error);

HttpResponse json_response(const Json& body);

}  // namespace hadal
