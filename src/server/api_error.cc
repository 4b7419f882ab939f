#include "server/api_error.h"

namespace hadal {

ApiError to_api_error(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
    case ErrorCode::kCorrupt:
      return {400, error.message};
    case ErrorCode::kNotFound:
      return {404, error.message};
    case ErrorCode::kResourceExhausted:
    case ErrorCode::kUnavailable:
    case ErrorCode::kCancelled:
      return {.status = 503, .message = error.message, .retry_after_s = 1};
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      break;
  }
  return {500, error.message};
}

const char* api_error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 404:
      return "NotFoundError";
    case 500:
    case 501:
      return "InternalServerError";
    case 503:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      return "BadRequestError";
  }
}

Json api_error_body(const ApiError& error) {
  return {{"error",
           {{"message", error.message},
            {"type", api_error_type(error.status)},
            {"param", error.param.empty() ? Json(nullptr) : Json(error.param)},
            {"code", error.status}}}};
}

HttpResponse api_error_response(const ApiError& error) {
  HttpResponse response = json_response(api_error_body(error));
  response.status = error.status;
  if (error.retry_after_s > 0) response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

HttpResponse json_response(const Json& body) {
  HttpResponse response;
  response.body = dump_json(body);
  return response;
}

}  // namespace hadal
