#include "eval/jsonl.h"

#include <algorithm>

namespace hadal {
namespace {

constexpr JsonLimits kLineLimits = {
    .max_bytes = size_t{16} << 20, .max_depth = 16, .max_values = 1'000'000, .refuse_duplicate_keys = true};

}  // namespace

Status for_each_json_line(std::string_view text, std::string_view where,
                          const std::function<Status(const Json& object, int64_t line)>& take) {
  for (int64_t line = 1; !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view content = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (content.find_first_not_of(" \t\r") == content.npos) continue;
    const std::string at = fmt::format("{}:{}", where, line);
    auto object = parse_json(content, kLineLimits);
    if (!object) return forward_error(std::move(object), at);
    if (!object->is_object()) {
      return make_error(ErrorCode::kCorrupt, "{}: a line must be a JSON object, this is a JSON {}", at,
                        object->type_name());
    }
    Status taken = take(*object, line);
    if (!taken) return forward_error(std::move(taken), at);
  }
  return {};
}

Expected<std::string> string_member(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end()) return make_error(ErrorCode::kCorrupt, "\"{}\" is missing", name);
  if (!found->is_string()) {
    return make_error(ErrorCode::kCorrupt, "\"{}\" must be a string, it is a JSON {}", name, found->type_name());
  }
  return found->get<std::string>();
}

}  // namespace hadal
