// HADAL_CHECK(condition, "message {}", value): stops the program on a bug of ours. Must be unreachable from any byte
// that a user, a file or a peer sends; those get an Expected (status.h).
#pragma once

#include <fmt/format.h>

#include <string>

namespace hadal {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);
}  // namespace hadal

#define HADAL_CHECK(condition, ...)                                                            \
  do {                                                                                         \
    if (!(condition)) [[unlikely]] {                                                           \
      ::hadal::check_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__));    \
    }                                                                                          \
  } while (false)
