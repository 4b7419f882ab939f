// Documents made from the masks of random schemas are valid, says a validator of its own.
#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "base/utf8.h"
#include "text/grammar_test_support.h"

namespace hadal {
namespace {

std::wstring characters_of(std::string_view text) {
  std::wstring result;
  while (!text.empty()) {
    const Utf8Step step = decode_utf8(text);
    result += static_cast<wchar_t>(step.code_point);
    text.remove_prefix(step.num_bytes);
  }
  return result;
}
bool pattern_found(const std::string& pattern, const std::string& text) {
  return std::regex_search(characters_of(text), std::wregex(characters_of(pattern)));
}

// Straight from the specification of JSON Schema; knows what the generator below writes. An empty string: valid.
class Validator {
 public:
  explicit Validator(const Json& root) : root_(root) {}

  std::string check(const Json& schema, const Json& value) const {
    if (schema.is_boolean()) return schema.get<bool>() ? "" : "false";
    for (const auto& [keyword, argument] : schema.items()) {
      if (!holds(keyword, argument, schema, value)) return keyword + " of " + value.dump();
    }
    return "";
  }

 private:
  bool valid(const Json& schema, const Json& value) const { return check(schema, value).empty(); }

  static bool has_type(const Json& value, const std::string& type) {
    if (type == "integer") return value.is_number() && std::floor(value.get<double>()) == value.get<double>();
    if (type == "number") return value.is_number();
    return (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
           (type == "string" && value.is_string()) || (type == "boolean" && value.is_boolean()) ||
           (type == "null" && value.is_null());
  }

  bool holds(const std::string& keyword, const Json& argument, const Json& schema, const Json& value) const {
    if (keyword == "type") {
      if (argument.is_string()) return has_type(value, argument);
      return std::any_of(argument.begin(), argument.end(), [&](const Json& type) { return has_type(value, type); });
    }
    if (keyword == "enum") return std::find(argument.begin(), argument.end(), value) != argument.end();
    if (keyword == "const") return value == argument;
    const auto is_valid = [&](const Json& part) { return valid(part, value); };
    if (keyword == "anyOf") return std::any_of(argument.begin(), argument.end(), is_valid);
    if (keyword == "oneOf") return std::count_if(argument.begin(), argument.end(), is_valid) == 1;
    if (keyword == "allOf") return std::all_of(argument.begin(), argument.end(), is_valid);
    if (keyword == "$ref") return valid(root_.at(Json::json_pointer(argument.get<std::string>().substr(1))), value);
    if (value.is_number()) return holds_for_number(keyword, argument, value.get<double>());
    if (value.is_string()) return holds_for_string(keyword, argument, value);
    if (value.is_array()) return holds_for_array(keyword, argument, schema, value);
    if (value.is_object()) return holds_for_object(keyword, argument, schema, value);
    return true;
  }

  static bool holds_for_number(const std::string& keyword, const Json& argument, double number) {
    if (keyword == "minimum") return number >= argument.get<double>();
    if (keyword == "maximum") return number <= argument.get<double>();
    if (keyword == "exclusiveMinimum") return number > argument.get<double>();
    if (keyword == "exclusiveMaximum") return number < argument.get<double>();
    if (keyword == "multipleOf") return std::fmod(number, argument.get<double>()) == 0;
    return true;
  }

  static bool holds_for_string(const std::string& keyword, const Json& argument, const std::string& text) {
    const auto length = static_cast<int64_t>(characters_of(text).size());
    if (keyword == "minLength") return length >= argument.get<int64_t>();
    if (keyword == "maxLength") return length <= argument.get<int64_t>();
    if (keyword == "pattern") return pattern_found(argument, text);
    if (keyword == "format" && argument == "ipv4") {
      int a = 0, b = 0, c = 0, d = 0, end = 0;
      const int count = std::sscanf(text.c_str(), "%3d.%3d.%3d.%3d%n", &a, &b, &c, &d, &end);
      return count == 4 && static_cast<size_t>(end) == text.size() && std::max({a, b, c, d}) <= 255;
    }
    if (keyword == "format" && argument == "date") {
      int year = 0, month = 0, day = 0, end = 0;
      const int count = std::sscanf(text.c_str(), "%4d-%2d-%2d%n", &year, &month, &day, &end);
      if (count != 3 || end != 10 || text.size() != 10 || year < 1 || month < 1 || month > 12 || day < 1) return false;
      const bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
      const int days[] = {31, is_leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
      return day <= days[month - 1];
    }
    return true;
  }

  bool holds_for_array(const std::string& keyword, const Json& argument, const Json& schema, const Json& value) const {
    if (keyword == "minItems") return value.size() >= argument.get<size_t>();
    if (keyword == "maxItems") return value.size() <= argument.get<size_t>();
    const size_t num_first = schema.contains("prefixItems") ? schema["prefixItems"].size() : 0;
    for (size_t i = 0; i < value.size(); ++i) {
      if (keyword == "prefixItems" && i < num_first && !valid(argument[i], value[i])) return false;
      if (keyword == "items" && i >= num_first && !valid(argument, value[i])) return false;
    }
    return true;
  }

  bool holds_for_object(const std::string& keyword, const Json& argument, const Json& schema, const Json& value) const {
    if (keyword == "minProperties") return value.size() >= argument.get<size_t>();
    if (keyword == "maxProperties") return value.size() <= argument.get<size_t>();
    if (keyword == "required") {
      return std::all_of(argument.begin(), argument.end(),
                         [&](const Json& name) { return value.contains(name.get<std::string>()); });
    }
    const Json none = Json::object();
    for (const auto& [name, member] : value.items()) {
      bool is_known = schema.contains("properties") && schema["properties"].contains(name);
      if (keyword == "properties" && is_known && !valid(argument[name], member)) return false;
      const Json patterns = schema.value("patternProperties", none);
      for (const auto& [pattern, property] : patterns.items()) {
        if (!pattern_found(pattern, name)) continue;
        is_known = true;
        if (keyword == "patternProperties" && !valid(property, member)) return false;
      }
      if (keyword == "additionalProperties" && !is_known && !valid(argument, member)) return false;
      if (keyword == "propertyNames" && !valid(argument, name)) return false;
    }
    return true;
  }

  const Json& root_;
};

class SchemaGenerator {
 public:
  explicit SchemaGenerator(uint32_t seed) : random_(seed) {}

  Json root() {
    Json schema = object(3);
    schema["$defs"] = {
        {"leaf", scalar()},
        {"list",
         {{"type", "object"},
          {"properties",
           {{"value", scalar()}, {"next", {{"anyOf", {{{"type", "null"}}, {{"$ref", "#/$defs/list"}}}}}}}},
          {"required", {"next"}}}}};
    return schema;
  }

 private:
  int below(int bound) { return static_cast<int>(random_() % static_cast<uint32_t>(bound)); }
  bool chance(int one_in) { return below(one_in) == 0; }
  std::string name() {
    static const char* names[] = {"id",   "name",        "value", "a", "ab",      "abc",
                                  "a\"b", "caf\xC3\xA9", "x/y",   "",  "the name"};
    return names[below(11)];
  }

  Json any(int depth) {
    if (depth == 0) return scalar();
    switch (below(10)) {
      case 0:
      case 1:
        return object(depth - 1);
      case 2:
      case 3:
        return array(depth - 1);
      case 4:
        return {{chance(2) ? "anyOf" : "oneOf", {{{"type", "null"}}, number(), text(), object(depth - 1)}}};
      case 5:
        return {{"allOf", {object(depth - 1), {{"required", {name()}}}}}};
      case 6:
        return {{"$ref", chance(2) ? "#/$defs/leaf" : "#/$defs/list"}};
      case 7:
        return tagged(depth - 1);
      default:
        return scalar();
    }
  }

  // Alternatives that a constant tells apart.
  Json tagged(int depth) {
    Json list = Json::array();
    for (const char* kind : {"circle", "square", "b\n"}) {
      Json schema = {{"type", "object"}, {"properties", {{"kind", {{"const", kind}}}, {"data", any(depth)}}}};
      schema["required"] = {"kind"};
      list.push_back(schema);
    }
    return {{"oneOf", list}};
  }

  Json scalar() {
    switch (below(8)) {
      case 0:
        return {{"type", "boolean"}};
      case 1:
        return {{"enum", {1, "one", nullptr, true, {1, 2}, {{"k", "v"}}, 2.5}}};
      case 2:
        return {{"type", {"integer", "null"}}};
      case 3:
        return {{"const", "c\"\\\xC3\xA9"}};
      case 4:
      case 5:
        return number();
      default:
        return text();
    }
  }

  Json number() {
    Json schema = {{"type", chance(2) ? "integer" : "number"}};
    const bool is_integer = schema["type"] == "integer";
    const auto bound = [&](int base) -> Json {
      if (is_integer || chance(3)) return base + below(2000);
      return base + below(2000) + below(1000) / 1000.0;
    };
    if (chance(2)) schema[chance(3) ? "exclusiveMinimum" : "minimum"] = bound(chance(2) ? -3000 : -500);
    if (chance(2)) schema[chance(3) ? "exclusiveMaximum" : "maximum"] = bound(chance(2) ? 2000 : 1600);
    if (is_integer && chance(4)) schema = {{"type", "integer"}, {"multipleOf", 1 + below(30)}};
    return schema;
  }

  Json text() {
    Json schema = {{"type", "string"}};
    static const char* patterns[] = {"^[a-z]+$", "^(foo|bar)?[0-9]{2,4}$", "a", "^x", "[\"\\\\]$", "^[^a-z]{1,8}$"};
    switch (below(6)) {
      case 0:
        schema["pattern"] = patterns[below(6)];
        break;
      case 1:
        schema["format"] = chance(2) ? "ipv4" : "date";
        break;
      case 2:
        schema["pattern"] = "^[ab\xC3\xA9]*$";
        [[fallthrough]];
      case 3:
        schema["minLength"] = below(6);
        schema["maxLength"] = 5 + below(20);
        break;
      default:
        break;
    }
    return schema;
  }

  Json array(int depth) {
    Json schema = {{"type", "array"}};
    const int num_first = chance(3) ? 1 + below(3) : 0;
    for (int i = 0; i < num_first; ++i) schema["prefixItems"].push_back(any(depth));
    if (num_first == 0 || chance(2)) schema["items"] = any(depth);
    if (chance(2)) schema["minItems"] = below(3);
    if (chance(2)) schema["maxItems"] = 2 + below(4);
    return schema;
  }

  Json object(int depth) {
    Json schema = {{"type", "object"}, {"properties", Json::object()}};
    for (int i = below(6); i > 0; --i) schema["properties"][name()] = any(depth);
    Json required = Json::array();
    for (const auto& [key, property] : schema["properties"].items()) {
      if (chance(2)) required.push_back(key);
    }
    if (!required.empty()) schema["required"] = required;
    switch (below(6)) {
      case 0:
        schema["additionalProperties"] = scalar();
        break;
      case 1:
        schema["additionalProperties"] = false;
        break;
      case 2:
        schema["patternProperties"] = {{"^q[0-9]$", scalar()}};
        break;
      case 3:
        schema["maxProperties"] = std::max<size_t>(required.size(), 1) + static_cast<size_t>(below(3));
        break;
      case 4:
        if (schema["properties"].size() > 1) schema["minProperties"] = 1 + below(2);
        break;
      default:
        break;
    }
    return schema;
  }

  std::mt19937 random_;
};

const TestVocabulary* nano_vocabulary() {
  static const std::unique_ptr<TestVocabulary> nano = []() -> std::unique_ptr<TestVocabulary> {
    auto tokenizer = Tokenizer::load(source_dir() / "models" / "nano");
    if (!tokenizer) return nullptr;
    auto result = std::make_unique<TestVocabulary>();
    result->tokenizer = std::move(*tokenizer);
    result->vocabulary = GrammarVocabulary::make(*result->tokenizer);
    return result;
  }();
  return nano.get();
}

TEST(JsonSchema, DocumentsOfRandomSchemasAreValid) {
  if (!nano_vocabulary()) std::printf("models/nano has no tokenizer: only the small vocabulary is used\n");
  size_t num_documents = 0, num_schemas = 0;
  for (uint32_t seed = 0; num_schemas < 1000; ++seed) {
    const Json schema = SchemaGenerator(seed).root();
    const auto grammar = compile_json_schema(schema, {.any_whitespace = seed % 2 == 0});
    // Some contradict themselves.
    if (!grammar && grammar.error().message == "schema: no text at all matches the grammar") continue;
    ASSERT_TRUE(grammar.has_value()) << grammar.error().message << "\n" << schema.dump();
    ++num_schemas;
    std::mt19937 random(seed);
    const bool use_nano = seed % 3 == 0 && nano_vocabulary();
    const TestVocabulary& vocabulary = use_nano ? *nano_vocabulary() : small_vocabulary();
    for (int i = 0; i < 3; ++i) {
      const std::string text = random_walk(*grammar, vocabulary, random);
      if (text.empty()) continue;
      const Json document = Json::parse(text, nullptr, false);
      ASSERT_FALSE(document.is_discarded()) << text << "\n" << schema.dump();
      ASSERT_EQ(Validator(schema).check(schema, document), "") << text << "\n" << schema.dump();
      ++num_documents;
    }
    ASSERT_FALSE(HasFailure()) << schema.dump();
  }
  EXPECT_GT(num_documents, 2900u);
}

}  // namespace
}  // namespace hadal
