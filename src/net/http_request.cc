#include "net/http_request.h"

#include <algorithm>
#include <string_view>

namespace hadal {
namespace {

bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || kMarks.find(c) != std::string_view::npos;
  });
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == 0x7F; });
}

bool equal_names(std::string_view a, std::string_view b) {
  const auto low = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return low(x) == low(y); });
}

}  // namespace

Expected<std::string> format_request(const HttpCall& call, const HttpUrl& url) {
  if (!is_token(call.method)) return make_error(ErrorCode::kInvalidArgument, "'{}' is no HTTP method", call.method);
  std::vector<std::pair<std::string, std::string>> headers = {
      {"Host", url.authority()}, {"Accept", "*/*"}, {"User-Agent", "hadal"}};
  if (!call.api_key.empty()) headers.emplace_back("Authorization", "Bearer " + call.api_key);
  if (!call.body.empty()) headers.emplace_back("Content-Type", "application/json");
  for (const auto& [name, value] : call.headers) {
    for (const char* framing : {"Content-Length", "Transfer-Encoding", "Connection"}) {
      if (equal_names(name, framing)) {
        return make_error(ErrorCode::kInvalidArgument, "header {}: is this client's own", name);
      }
    }
    std::erase_if(headers, [&](const auto& own) { return equal_names(own.first, name); });
  }
  headers.insert(headers.end(), call.headers.begin(), call.headers.end());
  std::string text = fmt::format("{} {} HTTP/1.1\r\n", call.method, url.target);
  for (const auto& [name, value] : headers) {
    if (!is_token(name)) return make_error(ErrorCode::kInvalidArgument, "'{}' is no header name", name);
    if (has_control(value)) {
      return make_error(ErrorCode::kInvalidArgument, "header {}: a line break or control character in its value", name);
    }
    text += fmt::format("{}: {}\r\n", name, value);
  }
  text += "Connection: close\r\n";
  if (!call.body.empty()) text += fmt::format("Content-Length: {}\r\n", call.body.size());
  return text + "\r\n" + call.body;
}

}  // namespace hadal
