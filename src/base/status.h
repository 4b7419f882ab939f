// Errors as values. Expected failures (bad file, bad request, full queue, lost peer) travel as Error inside an
// Expected<T>; CHECK (check.h) is for our own bugs only. The message says what, where, expected and found, what to do.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

#include <fmt/format.h>

namespace hadal {

enum class ErrorCode {
  kInvalidArgument,    // the caller's value is wrong: HTTP 400, exit code 2
  kNotFound,           // a named thing is absent
  kUnsupported,        // well-formed, but this program does not do it
  kCorrupt,            // foreign bytes contradict themselves or their container
  kResourceExhausted,  // does not fit: memory, queue, blocks
  kUnavailable,        // not now: loading, shutting down, lost peer
  kCancelled,
  kIo,        // the operating system said no
  kInternal,  // our bug, caught at a boundary
};

const char* error_code_name(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;

  // Prefixes the message with where it happened: "config.json: ...".
  Error in(std::string_view where) && { return {code, fmt::format("{}: {}", where, message)}; }
};

template <typename T>
using Expected = tl::expected<T, Error>;
using Status = Expected<void>;

// make_error(ErrorCode::kCorrupt, "header of {} bytes, file has {}", a, b) converts to any Expected<T>.
template <typename... Args>
tl::unexpected<Error> make_error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return tl::unexpected<Error>(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

// Passes an Expected's error on, from any Expected<T> to any Expected<U>.
template <typename T>
tl::unexpected<Error> forward_error(Expected<T>&& from) {
  return tl::unexpected<Error>(std::move(from).error());
}
template <typename T>
tl::unexpected<Error> forward_error(Expected<T>&& from, std::string_view where) {
  return tl::unexpected<Error>(std::move(from).error().in(where));
}

}  // namespace hadal

#define HADAL_CONCAT_INNER(a, b) a##b
#define HADAL_CONCAT(a, b) HADAL_CONCAT_INNER(a, b)

// HADAL_RETURN_IF_ERROR(status_expression);
#define HADAL_RETURN_IF_ERROR(expr)                                            \
  do {                                                                         \
    if (auto hadal_status = (expr); !hadal_status) {                           \
      return ::hadal::forward_error(std::move(hadal_status));                  \
    }                                                                          \
  } while (false)

// HADAL_ASSIGN_OR_RETURN(auto file, File::open(path));
#define HADAL_ASSIGN_OR_RETURN(lhs, expr) HADAL_ASSIGN_OR_RETURN_IMPL(HADAL_CONCAT(hadal_expected_, __LINE__), lhs, expr)
#define HADAL_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr)                \
  auto tmp = (expr);                                               \
  if (!tmp) return ::hadal::forward_error(std::move(tmp));         \
  lhs = std::move(*tmp)
