#include <algorithm>

#include "text/json_schema_compiler.h"
#include "text/json_schema_format.h"
#include "text/regex_grammar.h"

namespace hadal {
namespace {

// Longer strings are left out: each character costs states.
constexpr uint32_t kMaxCountedCharacters = 8192;

}  // namespace

Expected<JsonSchemaCompiler::Expr> JsonSchemaCompiler::compile_string(const Json& schema, const Place& place) {
  HADAL_ASSIGN_OR_RETURN(const uint32_t min, count_of(schema, "minLength", 0, place));
  HADAL_ASSIGN_OR_RETURN(uint32_t max, count_of(schema, "maxLength", GrammarBuilder::kUnbounded, place));
  if (min > kMaxCountedCharacters) {
    return make_error(ErrorCode::kResourceExhausted, "schema at \"{}\": minLength above {}", place.pointer,
                      kMaxCountedCharacters);
  }
  if (min > max) return GrammarBuilder::kNothing;
  if (max != GrammarBuilder::kUnbounded) max = std::min(max, kMaxCountedCharacters);

  const auto pattern = schema.find("pattern"), format = schema.find("format");
  if (pattern == schema.end() && format == schema.end()) {
    if (min == 0 && max == GrammarBuilder::kUnbounded) return json_.string();
    const Expr characters = builder_.repeat(json_.any_character(), min, max);
    return builder_.as_rule(place.pointer, json_.quoted(characters));
  }
  if (pattern != schema.end() && format != schema.end()) return unsupported(place, "pattern beside format is");
  const bool is_pattern = pattern != schema.end();
  const Json& source = is_pattern ? *pattern : *format;
  const char* keyword = is_pattern ? "pattern" : "format";
  if (!source.is_string()) return invalid(place, fmt::format("{} must be a string", keyword));
  std::string regex = source.get<std::string>();
  if (!is_pattern) {
    auto known = json_format_regex(regex);
    if (!known) return forward_error(std::move(known), fmt::format("schema at \"{}\"", place.pointer));
    regex = std::move(*known);
  }
  auto characters = regex_expression(
      builder_, regex,
      {.search = is_pattern, .min_characters = min, .max_characters = max, .character = [&](const CodePointSet& set) {
         return json_.character(set);
       }});
  if (!characters)
    return forward_error(std::move(characters), fmt::format("schema at \"{}/{}\"", place.pointer, keyword));
  return builder_.as_rule(place.in(keyword).pointer, json_.quoted(*characters));
}

}  // namespace hadal
