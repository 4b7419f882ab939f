// allOf and keywords beside $ref or anyOf: one schema that allows what all of them allow. And oneOf: whether
// alternatives exclude each other.
#include <algorithm>
#include <set>

#include "text/json_schema_compiler.h"

namespace hadal {
namespace {

constexpr int kMaxExclusionDepth = 8;
constexpr size_t kMaxExclusions = 100'000;  // pairs of schemas looked at

// From most to least restrictive is up (+1) or down (-1).
int bound_direction(std::string_view keyword) {
  for (const std::string_view lower : {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}) {
    if (keyword == lower) return 1;
  }
  for (const std::string_view upper : {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}) {
    if (keyword == upper) return -1;
  }
  return 0;
}

// Bits of the types that a schema allows.
enum TypeBit : unsigned {
  kObject = 1,
  kArray = 2,
  kString = 4,
  kInteger = 8,
  kFraction = 16,
  kBoolean = 32,
  kNull = 64
};
constexpr unsigned kAllTypes = 127;

unsigned bits_of_name(std::string_view name) {
  if (name == "object") return kObject;
  if (name == "array") return kArray;
  if (name == "string") return kString;
  if (name == "integer") return kInteger;
  if (name == "number") return kInteger | kFraction;
  if (name == "boolean") return kBoolean;
  if (name == "null") return kNull;
  return 0;
}

unsigned bits_of_value(const Json& value) {
  if (value.is_object()) return kObject;
  if (value.is_array()) return kArray;
  if (value.is_string()) return kString;
  if (value.is_boolean()) return kBoolean;
  if (value.is_null()) return kNull;
  return value.is_number_integer() ? kInteger : kInteger | kFraction;
}

// Nothing where neither enum nor const is there.
const std::vector<Json> values_of(const Json& schema) {
  if (const auto found = schema.find("const"); found != schema.end()) return {*found};
  if (const auto found = schema.find("enum"); found != schema.end() && found->is_array()) {
    return {found->begin(), found->end()};
  }
  return {};
}

unsigned types_of(const Json& schema) {
  if (schema.is_boolean()) return schema.get<bool>() ? kAllTypes : 0;
  unsigned bits = kAllTypes;
  if (const auto found = schema.find("type"); found != schema.end()) {
    bits = 0;
    for (const Json& name : found->is_array() ? *found : Json::array({*found})) {
      if (name.is_string()) bits |= bits_of_name(name.get<std::string>());
    }
    if (const auto nullable = schema.find("nullable"); nullable != schema.end() && *nullable == Json(true))
      bits |= kNull;
  }
  unsigned value_bits = 0;
  for (const Json& value : values_of(schema)) value_bits |= bits_of_value(value);
  return value_bits != 0 ? bits & value_bits : bits;
}

// Types as a `type` keyword.
Json type_keyword(unsigned bits) {
  Json names = Json::array();
  for (const char* name : {"object", "array", "string", "boolean", "null"}) {
    if (bits & bits_of_name(name)) names.push_back(name);
  }
  if (bits & kFraction) {
    names.push_back("number");
  } else if (bits & kInteger) {
    names.push_back("integer");
  }
  return names.size() == 1 ? names[0] : names;
}

bool requires_name(const Json& schema, const std::string& name) {
  const auto found = schema.find("required");
  return found != schema.end() && found->is_array() &&
         std::find(found->begin(), found->end(), Json(name)) != found->end();
}

Json both(const Json& a, const Json& b) { return a == b ? a : Json{{"allOf", Json::array({a, b})}}; }

}  // namespace

// The target of a schema that is a reference, with its other keywords merged in; others as they are.
Expected<Json> JsonSchemaCompiler::dereference(const Json& schema, const Place& place) {
  if (!schema.is_object() || !schema.contains("$ref")) return schema;
  if (place.depth > 100) return invalid(place, "a $ref that leads to itself");
  if (!schema["$ref"].is_string()) return invalid(place, "$ref must be a string");
  HADAL_ASSIGN_OR_RETURN(const Json* target, resolve(schema["$ref"].get<std::string>(), place));
  const Place deeper{place.pointer, place.depth + 1};
  HADAL_ASSIGN_OR_RETURN(const Json whole, dereference(*target, deeper));
  Json rest = Json::object();
  for (const auto& [key, value] : schema.items()) {
    if (key != "$ref" && !is_schema_annotation(key)) rest[key] = value;
  }
  if (rest.empty()) return whole;
  return merge(whole, rest, deeper);
}

// Resolves $ref and allOf at the top of a schema.
Expected<Json> JsonSchemaCompiler::merge_all(const Json& schema, const Place& place) {
  if (place.depth > 100) {
    return make_error(ErrorCode::kResourceExhausted, "schema at \"{}\": a reference that leads to itself through allOf",
                      place.pointer);
  }
  HADAL_ASSIGN_OR_RETURN(Json result, dereference(schema, place));
  if (!result.is_object() || !result.contains("allOf")) return result;
  const Json parts = result["allOf"];
  if (!parts.is_array() || parts.empty()) return invalid(place, "allOf must be an array of schemas");
  result.erase("allOf");
  for (size_t i = 0; i < parts.size(); ++i) {
    HADAL_ASSIGN_OR_RETURN(result, merge(result, parts[i], place.in("allOf", std::to_string(i))));
  }
  return result;
}

Expected<Json> JsonSchemaCompiler::merge(const Json& first, const Json& second, const Place& place) {
  if (++num_schemas_ > 20'000 || builder_.out_of_time()) {
    return make_error(ErrorCode::kResourceExhausted, "schema at \"{}\": too much to merge", place.pointer);
  }
  const Place deeper{place.pointer, place.depth + 1};
  HADAL_ASSIGN_OR_RETURN(const Json a, merge_all(first, deeper));
  HADAL_ASSIGN_OR_RETURN(const Json b, merge_all(second, deeper));
  if (a.is_boolean()) return a.get<bool>() ? b : a;
  if (b.is_boolean()) return b.get<bool>() ? a : b;
  if (!a.is_object() || !b.is_object()) return invalid(place, "a schema must be an object or a boolean");
  Json result = a;
  for (const auto& [key, value] : b.items()) {
    if (is_schema_annotation(key) || (result.contains(key) && result[key] == value)) continue;
    if (!result.contains(key)) {
      result[key] = value;
      continue;
    }
    Json& mine = result[key];
    if (const int direction = bound_direction(key); direction != 0 && mine.is_number() && value.is_number()) {
      if (direction * (value.get<double>() - mine.get<double>()) > 0) mine = value;
    } else if (key == "type") {
      const unsigned bits = types_of({{"type", mine}}) & types_of({{"type", value}});
      if (bits == 0) return Json(false);
      mine = type_keyword(bits);
    } else if (key == "required" && mine.is_array() && value.is_array()) {
      for (const Json& name : value) {
        if (std::find(mine.begin(), mine.end(), name) == mine.end()) mine.push_back(name);
      }
    } else if (key == "enum" && mine.is_array() && value.is_array()) {
      Json common = Json::array();
      for (const Json& item : mine) {
        if (std::find(value.begin(), value.end(), item) != value.end()) common.push_back(item);
      }
      if (common.empty()) return Json(false);
      mine = std::move(common);
    } else if (key == "const") {
      return Json(false);
    } else if (key == "items" && !mine.is_array() && !value.is_array()) {
      mine = both(mine, value);
    } else if (key == "nullable") {
      mine = false;
    } else if (key != "properties" && key != "additionalProperties") {
      return unsupported(place, fmt::format("two different \"{}\" that must both hold are", key));
    }
  }
  HADAL_RETURN_IF_ERROR(merge_objects(a, b, result, place));
  return result;
}

// properties and additionalProperties: the latter of one schema speaks of properties that only the other names.
Status JsonSchemaCompiler::merge_objects(const Json& a, const Json& b, Json& result, const Place& place) {
  const auto part = [](const Json& schema, const char* keyword) {
    const auto found = schema.find(keyword);
    return found == schema.end() ? nullptr : &*found;
  };
  const Json* properties[] = {part(a, "properties"), part(b, "properties")};
  const Json* others[] = {part(a, "additionalProperties"), part(b, "additionalProperties")};
  if (others[0] && others[1]) result["additionalProperties"] = both(*others[0], *others[1]);
  if (!properties[0] && !properties[1]) return {};
  Json merged = Json::object();
  for (int side = 0; side < 2; ++side) {
    if (!properties[side]) continue;
    if (!properties[side]->is_object()) return invalid(place, "properties must be an object");
    for (const auto& [name, property] : properties[side]->items()) {
      const Json* other = properties[1 - side] ? part(*properties[1 - side], name.c_str()) : nullptr;
      if (!other) other = others[1 - side];
      if (!merged.contains(name)) merged[name] = other && *other != Json(true) ? both(property, *other) : property;
    }
  }
  const bool has_patterns = a.contains("patternProperties") || b.contains("patternProperties");
  if (has_patterns && merged != a.value("properties", Json()) && merged != b.value("properties", Json())) {
    return unsupported(place, "patternProperties together with properties of another schema is");
  }
  result["properties"] = std::move(merged);
  return {};
}

bool JsonSchemaCompiler::excludes(const Json& first, const Json& second, int depth) {
  if (depth > kMaxExclusionDepth || ++num_exclusions_ > kMaxExclusions) return false;
  const Place place{"#", 0};
  const auto a = merge_all(first, place), b = merge_all(second, place);
  if (!a || !b) return false;
  if ((types_of(*a) & types_of(*b)) == 0) return true;
  if (!a->is_object() || !b->is_object()) return false;
  const std::vector<Json> a_values = values_of(*a), b_values = values_of(*b);
  if (!a_values.empty() && !b_values.empty()) {
    return std::none_of(a_values.begin(), a_values.end(), [&](const Json& value) {
      return std::find(b_values.begin(), b_values.end(), value) != b_values.end();
    });
  }
  for (const char* keyword : {"anyOf", "oneOf"}) {
    const auto all_excluded = [&](const Json& list, const Json& other, bool swapped) {
      return list.is_array() && std::all_of(list.begin(), list.end(), [&](const Json& part) {
               return swapped ? excludes(other, part, depth + 1) : excludes(part, other, depth + 1);
             });
    };
    if (a->contains(keyword) && all_excluded((*a)[keyword], *b, false)) return true;
    if (b->contains(keyword) && all_excluded((*b)[keyword], *a, true)) return true;
  }
  if ((types_of(*a) & types_of(*b)) != kObject) return false;
  const Json none = Json::object();
  const Json a_properties = a->value("properties", none), b_properties = b->value("properties", none);
  if (!a_properties.is_object() || !b_properties.is_object()) return false;
  // Objects made for `a` have the properties that it names and no others, unless it asks for them.
  const bool a_is_closed =
      !a->contains("patternProperties") && !a->contains("propertyNames") &&
      (a->contains("additionalProperties") ? (*a)["additionalProperties"] == Json(false) : !a_properties.empty());
  const auto b_required = b->find("required");
  if (a_is_closed && b_required != b->end() && b_required->is_array()) {
    for (const Json& name : *b_required) {
      if (name.is_string() && !a_properties.contains(name.get<std::string>()) &&
          !requires_name(*a, name.get<std::string>())) {
        return true;
      }
    }
  }
  const bool b_is_closed =
      !b->contains("patternProperties") && b->value("additionalProperties", Json(true)) == Json(false);
  const auto a_required = a->find("required");
  if (a_required == a->end() || !a_required->is_array()) return false;
  for (const Json& name : *a_required) {
    if (!name.is_string()) continue;
    const std::string key = name.get<std::string>();
    if (b_is_closed && !b_properties.contains(key)) return true;
    if (!a_properties.contains(key) || !b_properties.contains(key)) continue;
    // Told apart by what they both say about a member that is always there.
    if (excludes(a_properties[key], b_properties[key], depth + 1)) return true;
  }
  return false;
}

}  // namespace hadal
