#include <algorithm>

#include "text/json_schema_compiler.h"

namespace hadal {
namespace {

constexpr uint32_t kMaxCountedItems = 10'000;

}  // namespace

Expected<JsonSchemaCompiler::Expr> JsonSchemaCompiler::compile_array(const Json& schema, const Place& place) {
  if (const auto found = schema.find("uniqueItems"); found != schema.end() && *found != Json(false)) {
    return unsupported(place, "uniqueItems is");
  }
  HADAL_ASSIGN_OR_RETURN(const uint32_t min_items, count_of(schema, "minItems", 0, place));
  HADAL_ASSIGN_OR_RETURN(const uint32_t max_items, count_of(schema, "maxItems", GrammarBuilder::kUnbounded, place));
  // Before draft 2020-12 an array in `items` was what prefixItems is now, with the rest in additionalItems.
  const bool is_old = schema.contains("items") && schema["items"].is_array();
  const char* first_keyword = is_old ? "items" : "prefixItems";
  const char* rest_keyword = is_old ? "additionalItems" : "items";
  std::vector<Expr> first;
  if (const auto found = schema.find(first_keyword); found != schema.end()) {
    if (!found->is_array()) return invalid(place, fmt::format("{} must be an array of schemas", first_keyword));
    for (size_t i = 0; i < found->size(); ++i) {
      HADAL_ASSIGN_OR_RETURN(const Expr item, compile((*found)[i], place.in(first_keyword, std::to_string(i))));
      first.push_back(item);
    }
  }
  const auto rest_found = schema.find(rest_keyword);
  if (rest_found == schema.end() && first.empty() && min_items == 0 && max_items == GrammarBuilder::kUnbounded) {
    return json_.array();
  }
  // Items that are not spoken of may be anything; behind named ones they are left out unless minItems asks for them.
  Expr rest = first.empty() || min_items > first.size() ? json_.value() : GrammarBuilder::kNothing;
  if (rest_found != schema.end()) {
    HADAL_ASSIGN_OR_RETURN(rest, compile(*rest_found, place.in(rest_keyword)));
  }
  rest = builder_.as_rule(place.pointer + "/" + rest_keyword, rest);
  if (rest_found == schema.end() && !first.empty() && min_items <= first.size()) rest = GrammarBuilder::kNothing;

  const bool is_limited = max_items != GrammarBuilder::kUnbounded;
  const size_t last = is_limited ? max_items : std::max<size_t>({min_items, first.size(), 1});
  if (last > kMaxCountedItems || min_items > last) {
    if (min_items > last) return GrammarBuilder::kNothing;
    return make_error(ErrorCode::kResourceExhausted, "schema at \"{}\": minItems or maxItems above {}", place.pointer,
                      kMaxCountedItems);
  }
  std::vector<GrammarBuilder::GraphEdge> edges;
  std::vector<uint32_t> accepts;
  for (uint32_t count = 0; count <= last; ++count) {
    if (count >= std::max(min_items, 1u)) accepts.push_back(count);
    const Expr item = count < first.size() ? first[count] : rest;
    if (item == GrammarBuilder::kNothing || (count == last && is_limited)) continue;
    edges.push_back({count, std::min<uint32_t>(count + 1, static_cast<uint32_t>(last)),
                     count == 0 ? item : builder_.sequence({json_.comma(), item})});
  }
  const Expr filled =
      json_.array_of(builder_.graph(static_cast<uint32_t>(last) + 1, std::move(edges), std::move(accepts)));
  const Expr body = min_items == 0 ? builder_.choice({json_.array_of(GrammarBuilder::kEmpty), filled}) : filled;
  return builder_.as_rule(place.pointer, body);
}

}  // namespace hadal
