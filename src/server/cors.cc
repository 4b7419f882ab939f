#include "server/cors.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace hadal {
namespace {

bool holds(const std::vector<std::string>& list, std::string_view entry) {
  return std::find(list.begin(), list.end(), entry) != list.end();
}

std::string joined_or(const std::vector<std::string>& list, std::string_view instead_of_star) {
  return holds(list, "*") ? std::string(instead_of_star) : fmt::format("{}", fmt::join(list, ", "));
}

}  // namespace

HttpHeaders cors_headers(const CorsOptions& options, const HttpRequest& request) {
  const std::string_view origin = request.header("Origin");
  const bool any_origin = holds(options.allowed_origins, "*");
  HttpHeaders headers;
  if (origin.empty() || (!any_origin && !holds(options.allowed_origins, origin))) return headers;
  const bool name_it = !any_origin || options.allow_credentials;
  headers.emplace_back("Access-Control-Allow-Origin", name_it ? origin : "*");
  if (name_it) headers.emplace_back("Vary", "Origin");
  if (options.allow_credentials) headers.emplace_back("Access-Control-Allow-Credentials", "true");
  if (request.method != "OPTIONS") {
    headers.emplace_back("Access-Control-Expose-Headers", "X-Request-Id");
    return headers;
  }
  headers.emplace_back("Access-Control-Allow-Methods",
                       joined_or(options.allowed_methods, "GET, HEAD, POST, DELETE, OPTIONS"));
  const std::string_view wanted = request.header("Access-Control-Request-Headers");
  headers.emplace_back("Access-Control-Allow-Headers",
                       joined_or(options.allowed_headers, wanted.empty() ? std::string_view("*") : wanted));
  headers.emplace_back("Access-Control-Max-Age", "600");
  return headers;
}

}  // namespace hadal
