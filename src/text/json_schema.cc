#include <algorithm>

#include "text/json_schema_compiler.h"
#include "text/json_schema_number.h"

namespace hadal {
namespace {

// Schemas inside schemas, references followed.
constexpr int kMaxDepth = 100;
// Schemas looked at, merged ones included: allOf can multiply them.
constexpr size_t kMaxSchemas = 20'000;

constexpr std::string_view kAnnotations[] = {
    "title",           "description",   "default",     "examples", "example", "deprecated", "readOnly",
    "writeOnly",       "$schema",       "$id",         "$comment", "$defs",   "$anchor",    "contentMediaType",
    "contentEncoding", "discriminator", "definitions", "xml",      "strict",  "id"};
constexpr std::string_view kRefused[] = {"not",
                                         "if",
                                         "then",
                                         "else",
                                         "dependentRequired",
                                         "dependencies",
                                         "contains",
                                         "dependentSchemas",
                                         "minContains",
                                         "unevaluatedProperties",
                                         "maxContains",
                                         "$dynamicRef",
                                         "unevaluatedItems",
                                         "$recursiveRef"};

struct TypeKeywords {
  std::string_view type;
  std::vector<std::string_view> keywords;
};
const std::vector<TypeKeywords>& type_keywords() {
  static const std::vector<TypeKeywords> table = {
      {"object",
       {"properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties",
        "maxProperties"}},
      {"array", {"items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"}},
      {"string", {"minLength", "maxLength", "pattern", "format"}},
      {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}},
      {"integer", {}},
      {"boolean", {}},
      {"null", {}}};
  return table;
}

constexpr std::string_view kOthers[] = {"type", "enum", "const", "$ref", "allOf", "anyOf", "oneOf", "nullable"};

template <typename List>
bool is_in(const List& list, std::string_view keyword) {
  return std::find(std::begin(list), std::end(list), keyword) != std::end(list);
}

bool has_type(const Json& value, std::string_view type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "integer" && value.is_number_float()) {
    const double number = value.get<double>();
    return number == static_cast<double>(static_cast<int64_t>(std::clamp(number, -9e15, 9e15)));
  }
  return value.is_number();
}

std::string escaped_pointer(std::string_view name) {
  std::string result;
  for (const char c : name) {
    if (c == '~') {
      result += "~0";
    } else if (c == '/') {
      result += "~1";
    } else {
      result += c;
    }
  }
  return result;
}

Json without_annotations(const Json& schema) {
  Json result = Json::object();
  for (const auto& [key, value] : schema.items()) {
    if (!is_schema_annotation(key)) result[key] = value;
  }
  return result;
}

int depth_of(const Json& value) {
  std::vector<std::pair<const Json*, int>> todo = {{&value, 1}};
  int deepest = 0;
  while (!todo.empty()) {
    const auto [next, depth] = todo.back();
    todo.pop_back();
    deepest = std::max(deepest, depth);
    if (!next->is_structured()) continue;
    for (const Json& element : *next) todo.emplace_back(&element, depth + 1);
  }
  return deepest;
}

}  // namespace

bool is_schema_annotation(std::string_view keyword) {
  return keyword.starts_with("x-") || is_in(kAnnotations, keyword);
}

JsonSchemaCompiler::Place JsonSchemaCompiler::Place::in(std::string_view keyword) const {
  return {fmt::format("{}/{}", pointer, escaped_pointer(keyword)), depth + 1};
}
JsonSchemaCompiler::Place JsonSchemaCompiler::Place::in(std::string_view keyword, std::string_view name) const {
  return {fmt::format("{}/{}/{}", pointer, keyword, escaped_pointer(name)), depth + 1};
}

JsonSchemaCompiler::JsonSchemaCompiler(GrammarBuilder& builder, JsonGrammar& json, const Json& root)
    : builder_(builder), json_(json), root_(root) {}

tl::unexpected<Error> JsonSchemaCompiler::invalid(const Place& place, std::string_view what) const {
  return make_error(ErrorCode::kInvalidArgument, "schema at \"{}\": {}", place.pointer, what);
}
tl::unexpected<Error> JsonSchemaCompiler::unsupported(const Place& place, std::string_view what) const {
  return make_error(ErrorCode::kUnsupported, "schema at \"{}\": {} not supported", place.pointer, what);
}

Expected<uint32_t> JsonSchemaCompiler::count_of(const Json& schema, const char* keyword, uint32_t missing,
                                                const Place& place) const {
  const auto found = schema.find(keyword);
  if (found == schema.end()) return missing;
  const bool is_whole = found->is_number() && found->get<double>() >= 0 && has_type(*found, "integer");
  if (!is_whole) return invalid(place, fmt::format("{} must be a whole number from 0 on", keyword));
  return static_cast<uint32_t>(std::min(found->get<double>(), 4e9));
}

Expected<JsonSchemaCompiler::Expr> JsonSchemaCompiler::compile() {
  if (depth_of(root_) > kMaxDepth) {
    return make_error(ErrorCode::kResourceExhausted, "schema nested deeper than {} levels", kMaxDepth);
  }
  const GrammarBuilder::Rule rule = builder_.add_rule("#");
  references_["#"] = builder_.call(rule);
  HADAL_ASSIGN_OR_RETURN(const Expr body, compile(root_, Place{"#", 0}));
  builder_.define(rule, body);
  return references_["#"];
}

Expected<JsonSchemaCompiler::Expr> JsonSchemaCompiler::compile(const Json& schema, const Place& place) {
  if (place.depth > kMaxDepth || ++num_schemas_ > kMaxSchemas || builder_.out_of_time()) {
    return make_error(ErrorCode::kResourceExhausted,
                      "schema at \"{}\": too large, or a reference that leads to itself through allOf", place.pointer);
  }
  if (schema.is_boolean()) return schema.get<bool>() ? json_.value() : GrammarBuilder::kNothing;
  if (!schema.is_object()) return invalid(place, "a schema must be an object or a boolean");
  for (const auto& [key, value] : schema.items()) {
    if (is_schema_annotation(key) || is_in(kOthers, key)) continue;
    if (is_in(kRefused, key)) return unsupported(place, fmt::format("keyword \"{}\" is", key));
    const auto& table = type_keywords();
    if (std::none_of(table.begin(), table.end(), [&](const auto& row) { return is_in(row.keywords, key); })) {
      return unsupported(place, fmt::format("unknown keyword \"{}\" is", key));
    }
  }
  if (schema.contains("$ref")) {
    const Json rest = without_annotations(schema);
    if (!schema["$ref"].is_string()) return invalid(place, "$ref must be a string");
    if (rest.size() == 1) return compile_reference(schema["$ref"].get<std::string>(), place);
    HADAL_ASSIGN_OR_RETURN(const Json merged, merge_all(rest, place));
    return compile(merged, {place.pointer, place.depth + 1});
  }
  if (schema.contains("allOf")) {
    HADAL_ASSIGN_OR_RETURN(const Json merged, merge_all(schema, place));
    return compile(merged, {place.pointer, place.depth + 1});
  }
  const bool has_any = schema.contains("anyOf"), has_one = schema.contains("oneOf");
  if (has_any && has_one) return unsupported(place, "anyOf beside oneOf is");
  if (has_any || has_one) return compile_alternatives(schema, has_any ? "anyOf" : "oneOf", place);
  if (schema.contains("enum") || schema.contains("const")) return compile_values(schema, place);
  return compile_types(schema, place);
}

Expected<const Json*> JsonSchemaCompiler::resolve(const std::string& reference, const Place& place) const {
  if (reference != "#" && !reference.starts_with("#/")) {
    return unsupported(
        place, fmt::format("$ref \"{}\" (only \"#\" and \"#/...\", places in this document, are) is", reference));
  }
  const Json* target = &root_;
  for (size_t begin = 1; begin < reference.size();) {
    size_t end = std::min(reference.find('/', begin + 1), reference.size());
    std::string name;
    for (size_t i = begin + 1; i < end; ++i) {
      if (reference[i] == '~' && i + 1 < end && (reference[i + 1] == '0' || reference[i + 1] == '1')) {
        name += reference[++i] == '0' ? '~' : '/';
      } else {
        name += reference[i];
      }
    }
    begin = end;
    if (target->is_object() && target->contains(name)) {
      target = &(*target)[name];
    } else if (target->is_array() && !name.empty() && name.size() < 8 &&
               name.find_first_not_of("0123456789") == std::string::npos && std::stoul(name) < target->size()) {
      target = &(*target)[std::stoul(name)];
    } else {
      return invalid(place, fmt::format("$ref \"{}\" leads nowhere", reference));
    }
  }
  return target;
}

Expected<JsonSchemaCompiler::Expr> JsonSchemaCompiler::compile_reference(const std::string& reference,
                                                                         const Place& place) {
  if (const auto found = references_.find(reference); found != references_.end()) return found->second;
  HADAL_ASSIGN_OR_RETURN(const Json* target, resolve(reference, place));
  const GrammarBuilder::Rule rule = builder_.add_rule(reference);
  const Expr call = builder_.call(rule);
  references_[reference] = call;
  HADAL_ASSIGN_OR_RETURN(const Expr body, compile(*target, Place{reference, place.depth + 1}));
  builder_.define(rule, body);
  return call;
}

Expected<JsonSchemaCompiler::Expr> JsonSchemaCompiler::compile_alternatives(const Json& schema, const char* keyword,
                                                                            const Place& place) {
  const Json& list = schema[keyword];
  if (!list.is_array() || list.empty()) return invalid(place, fmt::format("{} must be an array of schemas", keyword));
  Json common = without_annotations(schema);
  common.erase(keyword);
  std::vector<Json> schemas;
  for (size_t i = 0; i < list.size(); ++i) {
    const Place inner = place.in(keyword, std::to_string(i));
    if (common.empty()) {
      schemas.push_back(list[i]);
      continue;
    }
    HADAL_ASSIGN_OR_RETURN(Json merged, merge(common, list[i], inner));
    schemas.push_back(std::move(merged));
  }
  const bool is_exclusive = std::string_view(keyword) == "oneOf";
  for (size_t i = 0; i < schemas.size() && is_exclusive; ++i) {
    for (size_t j = 0; j < schemas.size(); ++j) {
      if (i != j && !excludes(schemas[i], schemas[j], 0)) {
        return unsupported(place,
                           fmt::format("oneOf whose alternatives {} and {} are not seen to exclude each other (use "
                                       "anyOf, or tell them apart by a required const) is",
                                       std::min(i, j), std::max(i, j)));
      }
    }
  }
  std::vector<Expr> alternatives;
  for (size_t i = 0; i < schemas.size(); ++i) {
    HADAL_ASSIGN_OR_RETURN(const Expr alternative, compile(schemas[i], place.in(keyword, std::to_string(i))));
    alternatives.push_back(alternative);
  }
  return builder_.choice(std::move(alternatives));
}

// enum and const. Other keywords are refused, but for the type.
Expected<JsonSchemaCompiler::Expr> JsonSchemaCompiler::compile_values(const Json& schema, const Place& place) {
  for (const auto& [key, value] : schema.items()) {
    if (is_schema_annotation(key) || key == "enum" || key == "const" || key == "type" || key == "nullable") continue;
    return unsupported(place, fmt::format("\"{}\" beside enum or const is", key));
  }
  std::vector<Json> values;
  if (schema.contains("enum")) {
    if (!schema["enum"].is_array() || schema["enum"].empty()) return invalid(place, "enum must be an array of values");
    for (const Json& value : schema["enum"]) values.push_back(value);
  }
  if (const auto found = schema.find("const"); found != schema.end()) {
    if (schema.contains("enum") && std::find(values.begin(), values.end(), *found) == values.end()) {
      return GrammarBuilder::kNothing;
    }
    values = {*found};
  }
  std::vector<Expr> alternatives;
  for (const Json& value : values) {
    const auto type = schema.find("type");
    bool fits = type == schema.end();
    if (!fits && type->is_string()) fits = has_type(value, type->get<std::string>());
    if (!fits && type->is_array()) {
      fits = std::any_of(type->begin(), type->end(),
                         [&](const Json& t) { return t.is_string() && has_type(value, t.get<std::string>()); });
    }
    if (fits) alternatives.push_back(json_.literal(value));
  }
  return builder_.choice(std::move(alternatives));
}

// Without a type: the types that the keywords speak of; any value where there are none.
Expected<JsonSchemaCompiler::Expr> JsonSchemaCompiler::compile_types(const Json& schema, const Place& place) {
  std::vector<std::string> types;
  if (const auto found = schema.find("type"); found != schema.end()) {
    const Json list = found->is_array() ? *found : Json::array({*found});
    for (const Json& type : list) {
      const auto& table = type_keywords();
      const auto is_known = [&](const auto& row) { return type.is_string() && row.type == type.get<std::string>(); };
      if (std::none_of(table.begin(), table.end(), is_known)) {
        return invalid(place, fmt::format("type {} is none of object, array, string, number, integer, boolean, null",
                                          dump_json(type)));
      }
      types.push_back(type.get<std::string>());
    }
    if (types.empty()) return invalid(place, "type names none");
    // An integer is a number.
    if (is_in(types, "number")) std::erase(types, "integer");
  } else {
    for (const auto& [type, keywords] : type_keywords()) {
      const auto is_there = [&](std::string_view keyword) { return schema.contains(std::string(keyword)); };
      if (std::any_of(keywords.begin(), keywords.end(), is_there)) types.emplace_back(type);
    }
    if (types.empty()) return json_.value();
  }
  if (const auto found = schema.find("nullable"); found != schema.end() && found->is_boolean() && found->get<bool>()) {
    if (!is_in(types, "null")) types.push_back("null");
  }
  std::vector<Expr> alternatives;
  for (const std::string& type : types) {
    HADAL_ASSIGN_OR_RETURN(const Expr alternative, compile_type(type, schema, place));
    alternatives.push_back(alternative);
  }
  return builder_.choice(std::move(alternatives));
}

Expected<JsonSchemaCompiler::Expr> JsonSchemaCompiler::compile_type(std::string_view type, const Json& schema,
                                                                    const Place& place) {
  if (type == "object") return compile_object(schema, place);
  if (type == "array") return compile_array(schema, place);
  if (type == "string") return compile_string(schema, place);
  if (type == "boolean") return json_.boolean();
  if (type == "null") return json_.null();
  auto number = type == "integer" ? bounded_integer(builder_, json_, schema) : bounded_number(builder_, json_, schema);
  if (!number) return forward_error(std::move(number), fmt::format("schema at \"{}\"", place.pointer));
  return *number;
}

Expected<Grammar> compile_json_schema(const Json& schema, const JsonSchemaOptions& options) {
  if (!schema.is_object() && !(schema.is_boolean() && schema.get<bool>())) {
    return make_error(ErrorCode::kInvalidArgument, "a schema must be an object, or true");
  }
  if (const size_t size = dump_json(schema).size(); size > options.limits.max_source_bytes) {
    return make_error(ErrorCode::kResourceExhausted, "schema of {} bytes, at most {} accepted", size,
                      options.limits.max_source_bytes);
  }
  GrammarBuilder builder(options.limits);
  JsonGrammar json(builder, options.any_whitespace);
  HADAL_ASSIGN_OR_RETURN(const GrammarBuilder::Expr document, JsonSchemaCompiler(builder, json, schema).compile());
  const GrammarBuilder::Rule root = builder.add_rule("document");
  builder.define(root, document);
  auto grammar = builder.build(root);
  if (!grammar) return forward_error(std::move(grammar), "schema");
  return grammar;
}

Expected<Grammar> compile_json_object(const JsonSchemaOptions& options) {
  GrammarBuilder builder(options.limits);
  JsonGrammar json(builder, options.any_whitespace);
  const GrammarBuilder::Rule root = builder.add_rule("document");
  builder.define(root, json.object());
  return builder.build(root);
}

}  // namespace hadal
