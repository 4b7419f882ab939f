// What schemas take and refuse, by hand. Random ones: json_schema_random_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/grammar_test_support.h"

namespace hadal {
namespace {

using testing::HasSubstr;

struct DocumentCase {
  const char* schema;
  std::vector<std::string> valid, others;
};

void check_documents(const std::vector<DocumentCase>& cases, const JsonSchemaOptions& options = {}) {
  for (const DocumentCase& c : cases) {
    const auto grammar = compile_json_schema(Json::parse(c.schema), options);
    ASSERT_TRUE(grammar.has_value()) << c.schema << ": " << grammar.error().message;
    for (const auto& text : c.valid) EXPECT_TRUE(accepts_text(*grammar, text)) << c.schema << " on " << text;
    for (const auto& text : c.others) EXPECT_FALSE(accepts_text(*grammar, text)) << c.schema << " on " << text;
  }
}

TEST(JsonSchema, Scalars) {
  check_documents({
      {"true",
       {"{\"a\": [1, null, {}]}", "1", "\"x\"", "[ ]", "-0.5e+7"},
       {"", "01", "+1", "1.", "nul", "[1,]", "{a:1}"}},
      {R"({"type": "string"})",
       {R"("")", R"("a\n\"\\\/\u00e9\uD83D\uDE00")", "\"\xE4\xB8\xAD\xF0\x9F\x98\x80\x7F\""},
       {R"("a)", "\"\n\"", R"("\x")", R"("\ud83d")", R"("\ude00")", R"("\ud83dx")", "\"\xC3\"", "\"\xED\xA0\x80\"",
        "\"\xFF\""}},
      {R"({"type": ["integer", "null"]})", {"0", "-12", "null"}, {"1.5", "-", "true", "00"}},
      {R"({"type": "boolean", "title": "t", "default": true, "x-own": 1})", {"true", "false"}, {"True", "1"}},
      {R"({"type": "string", "nullable": true})", {"null", "\"\""}, {"1"}},
      {R"({"enum": ["a", 1, null, {"k": [1, 2]}, 1.5]})",
       {"\"a\"", "1", "null", "{\"k\":[1,2]}", "{\"k\": [1, 2]}", "1.5"},
       {"2", "\"b\"", "{}"}},
      {R"({"enum": ["a", 1], "type": "string"})", {"\"a\""}, {"1"}},
      {R"({"const": "x\"y"})", {R"("x\"y")"}, {"\"x\""}},
  });
}

TEST(JsonSchema, Numbers) {
  check_documents({
      {R"({"type": "integer", "minimum": -12, "maximum": 105})",
       {"-12", "-9", "-1", "0", "7", "99", "100", "105"},
       {"-13", "-20", "106", "110", "1000", "007", "-0"}},
      {R"({"type": "integer", "exclusiveMinimum": 9, "exclusiveMaximum": 11})", {"10"}, {"9", "11", "1"}},
      {R"({"type": "integer", "minimum": 2.5, "maximum": 1e3})", {"3", "999", "1000"}, {"2", "1001"}},
      {R"({"type": "integer", "minimum": 5, "exclusiveMinimum": true})", {"6"}, {"5"}},
      {R"({"type": "integer", "maximum": -1})", {"-1", "-123456"}, {"0", "1", "-0"}},
      {R"({"type": "integer", "minimum": 1234567890123})", {"1234567890123", "999999999999999999"}, {"1234567890122"}},
      {R"({"type": "number", "minimum": 0.25, "maximum": 2})",
       {"0.25", "0.3", "1", "1.999", "2", "2.0", "0.250"},
       {"0.2", "0.24999", "2.01", "2.000001", "-1", "0", "1e0"}},
      {R"({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})",
       {"0.5", "0.000001", "0.999999"},
       {"0", "1", "0.0", "1.0", "-0.5"}},
      {R"({"type": "number", "minimum": -1.5, "exclusiveMaximum": -0.5})",
       {"-1.5", "-1.50", "-1", "-0.51"},
       {"-1.51", "-0.5", "-0.50", "0", "-2"}},
      {R"({"type": "number", "minimum": 1600000000000})", {"1600000000000", "1700000000001"}, {"1599999999999", "5"}},
      {R"({"type": "number", "maximum": 0})", {"0", "-3.5"}, {"0.1", "1"}},
      {R"({"type": "integer", "multipleOf": 7})", {"0", "7", "14", "-21", "700"}, {"1", "15", "70000000000"}},
      {R"({"type": "integer", "multipleOf": 5, "minimum": -7, "maximum": 12})",
       {"-5", "0", "5", "10"},
       {"-10", "15", "1"}},
  });
}

TEST(JsonSchema, Strings) {
  check_documents({
      {R"({"type": "string", "minLength": 2, "maxLength": 3})",
       {R"("ab")", "\"\xE4\xB8\xAD\xE4\xB8\xAD\xE4\xB8\xAD\"", R"("\n\uD83D\uDE00")"},
       {R"("a")", R"("abcd")", R"("")"}},
      {R"({"pattern": "^a\"+$"})", {R"("a\"")", R"("a\"\"")"}, {R"("a")", R"("a"")"}},
      {R"({"pattern": "b"})", {R"("b")", R"("abc")"}, {R"("ac")"}},
      {R"({"pattern": "^[\\n-\\r]$"})", {R"("\n")", R"("\r")", R"("\u000b")"}, {"\"\n\"", R"("a")"}},
      {R"({"pattern": "^[a-z]+$", "minLength": 2, "maxLength": 4})",
       {R"("ab")", R"("abcd")"},
       {R"("a")", R"("abcde")"}},
      {R"({"pattern": "^x|y$"})", {R"("xa")", R"("ay")"}, {R"("ax")"}},
      {R"({"format": "date"})",
       {R"("2024-02-29")", R"("1999-12-31")"},
       {R"("2023-02-29")", R"("1900-02-29")", R"("0000-01-01")", R"("2020-04-31")"}},
      {R"({"format": "date-time"})",
       {R"("2024-02-29T23:59:59Z")", R"("2024-01-01T00:00:00.5+01:30")"},
       {R"("2024-01-01 00:00:00Z")", R"("2024-01-01T24:00:00Z")", R"("2024-01-01T00:00:00")"}},
      {R"({"format": "uuid"})",
       {R"("123e4567-e89b-12d3-a456-426614174000")"},
       {R"("123e4567e89b12d3a456426614174000")"}},
      {R"({"format": "ipv4"})", {R"("192.168.0.255")"}, {R"("256.1.1.1")", R"("01.1.1.1")"}},
      {R"({"format": "ipv6"})",
       {R"("::")", R"("::1")", R"("2001:db8::8a2e:370:7334")", R"("1:2:3:4:5:6:7:8")", R"("1::")"},
       {R"("1:2:3:4:5:6:7")", R"("1::2::3")", R"("12345::")"}},
      {R"({"format": "email"})", {R"("ada.l@mail.example.org")"}, {R"("ada@x")", R"("@x.org")", R"("a b@x.org")"}},
      {R"({"format": "uri", "maxLength": 40})",
       {R"("https://a.example:8080/p/q?x=1#y")"},
       {R"("no uri")", R"("https://")"}},
      {R"({"format": "duration"})", {R"("P1Y2M3DT4H5M6S")", R"("PT1H")", R"("P2W")"}, {R"("P")", R"("1H")", R"("PT")"}},
      {R"({"format": "time"})", {R"("12:34:56.789Z")"}, {R"("12:34")"}},
  });
}

TEST(JsonSchema, Arrays) {
  check_documents({
      {R"({"type": "array"})", {"[]", "[1, \"a\", [[]]]", "[ ]"}, {"[1 ,2]", "[,]", "{}"}},
      {R"({"items": {"type": "integer"}, "minItems": 1, "maxItems": 3})",
       {"[1]", "[1,2,3]", "[\n  1,\n  2\n]"},
       {"[]", "[1,2,3,4]", "[\"a\"]"}},
      {R"({"type": "array", "maxItems": 0})", {"[]"}, {"[1]"}},
      {R"({"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false})",
       {"[]", "[1]", "[1, \"a\"]"},
       {"[1, \"a\", 2]", "[\"a\"]"}},
      {R"({"prefixItems": [{"type": "integer"}], "items": {"type": "null"}})", {"[1, null, null]"}, {"[1, 2]"}},
      {R"({"items": [{"type": "integer"}], "additionalItems": {"type": "null"}})", {"[1, null]"}, {"[1, 2]"}},
      {R"({"type": "array", "minItems": 2})", {"[1, []]"}, {"[1]"}},
  });
}

TEST(JsonSchema, Objects) {
  check_documents({
      {R"({"type": "object"})", {"{}", R"({"a": 1, "b": {"c": []}})", "{ }"}, {"{\"a\"}", "{\"a\" : 1}"}},
      {R"({"properties": {"a": {"type": "integer"}, "b": {"type": "null"}, "c": {}}, "required": ["b"]})",
       {R"({"b": null})", R"({"a": 1, "b": null})", R"({"b": null, "c": {"x": 1}})",
        "{\n\t\"a\": 1,\n\t\"b\": null\n}"},
       {"{}", R"({"a": 1})", R"({"b": null, "a": 1})", R"({"b": null, "d": 1})", R"({"a": 1, "b": null,})"}},
      {R"({"properties": {"a": {}}, "additionalProperties": {"type": "integer"}})",
       {"{}", R"({"a": "x", "b": 1, "ab": 2, "": 3, "x\u0062": 4})", R"({"b": 1})"},
       {R"({"b": "x"})", R"({"b": 1, "a": "x"})", R"({"\u0061": 1})", R"({"a": 1, "a": 2})"}},
      {R"({"additionalProperties": {"type": "integer"}})", {"{}", R"({"x": 1, "y": 2})"}, {R"({"x": null})"}},
      {R"({"additionalProperties": false})", {"{}"}, {R"({"a": 1})"}},
      {R"({"required": ["z"]})", {R"({"z": [1]})"}, {"{}"}},
      {R"({"properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 1, "maxProperties": 2})",
       {R"({"a": 1})", R"({"a": 1, "c": 2})"},
       {"{}", R"({"a": 1, "b": 1, "c": 1})"}},
      {R"({"type": "object", "maxProperties": 1})", {"{}", R"({"a": 1})"}, {R"({"a": 1, "b": 2})"}},
      {R"({"patternProperties": {"^x-[a-z]+$": {"type": "integer"}}, "additionalProperties": false, "properties": {"n": {}}})",
       {R"({"n": 1, "x-a": 2, "x-b": 3})", "{}"},
       {R"({"x-1": 2})", R"({"x-a": null})"}},
      {R"({"propertyNames": {"pattern": "^[a-z]$"}, "additionalProperties": {"type": "null"}})",
       {R"({"a": null})"},
       {R"({"A": null})"}},
      {R"({"properties": {"say \"hi\"": {"type": "null"}}, "required": ["say \"hi\""]})",
       {R"({"say \"hi\"": null})"},
       {"{}"}},
  });
}

TEST(JsonSchema, Combinations) {
  check_documents({
      {R"({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]})", {"1", "\"a\""}, {"\"ab\"", "null"}},
      {R"({"oneOf": [{"type": "integer"}, {"type": "array", "items": {"type": "null"}}]})", {"1", "[null]"}, {"[1]"}},
      {R"({"oneOf": [{"properties": {"k": {"const": 1}, "v": {"type": "null"}}, "required": ["k"], "type": "object"},
                     {"properties": {"k": {"const": 2}}, "required": ["k"], "type": "object"}]})",
       {R"({"k": 1, "v": null})", R"({"k": 2})"},
       {R"({"k": 2, "v": null})", R"({"k": 3})"}},
      {R"({"oneOf": [{"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": false},
                     {"type": "object", "properties": {"b": {}}, "required": ["b"], "additionalProperties": false}]})",
       {R"({"a": 1})", R"({"b": 1})"},
       {"{}"}},
      {R"({"allOf": [{"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]},
                     {"properties": {"a": {"type": ["integer", "null"]}, "b": {"const": 1}}, "required": ["b"]}]})",
       {R"({"a": 1, "b": 1})"},
       {R"({"a": 1.5, "b": 1})", R"({"a": null, "b": 1})", R"({"a": 1})"}},
      {R"({"allOf": [{"minimum": 3}, {"minimum": 5, "maximum": 7}], "type": "integer"})", {"5", "7"}, {"4", "8"}},
      {R"({"type": "object", "properties": {"a": {}}, "anyOf": [{"required": ["a"]}, {"properties": {"b": {"const": 2}}, "required": ["b"]}]})",
       {R"({"a": 1})", R"({"a": 1, "b": 2})", R"({"b": 2})"},
       {"{}"}},
      {R"({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "null"}}})", {"null"}, {"1"}},
      {R"({"$ref": "#/$defs/n", "maximum": 5, "$defs": {"n": {"type": "integer", "minimum": 3}}})",
       {"3", "5"},
       {"2", "6"}},
      {R"({"type": "object", "properties": {"next": {"$ref": "#"}, "v": {"type": "integer"}}})",
       {"{}", R"({"next": {"next": {"v": 1}, "v": 2}})"},
       {R"({"next": 1})"}},
      {R"({"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]})",
       {"null", "[[], [null, [null]]]"},
       {"[1]"}},
  });
}

TEST(JsonSchema, WithoutWhitespaceOnlyThatOfTheSeparators) {
  check_documents({{R"({"properties": {"a": {"items": {}}, "b": {}}})",
                    {R"({"a": [1, {"x": 2}], "b": null})", "{}"},
                    {R"({"a":1})", R"({ "a": []})", R"({"a": [1,2]})", "{ }", "{\"a\": []\n}"}}},
                  {.any_whitespace = false});
}

TEST(JsonSchema, WhitespaceIsBounded) {
  const auto grammar = compile_json_object();
  ASSERT_TRUE(grammar.has_value());
  EXPECT_TRUE(accepts_text(*grammar, "{\n    \"a\": 1,\r\n\t\t\"b\": 2\n}"));
  EXPECT_FALSE(accepts_text(*grammar, "{  \"a\": 1}"));
  EXPECT_FALSE(accepts_text(*grammar, "{\n\n\"a\": 1}"));
  EXPECT_FALSE(accepts_text(*grammar, "{\n" + std::string(41, ' ') + "\"a\": 1}"));
  EXPECT_FALSE(accepts_text(*grammar, " {}"));
  EXPECT_FALSE(accepts_text(*grammar, "{} "));
  EXPECT_FALSE(accepts_text(*grammar, "[]"));
}

struct RefusedCase {
  const char* schema;
  ErrorCode code;
  const char* message;
};

TEST(JsonSchema, RefusesByName) {
  const RefusedCase cases[] = {
      {R"([])", ErrorCode::kInvalidArgument, "must be an object"},
      {R"({"type": "text"})", ErrorCode::kInvalidArgument, R"(schema at "#": type "text" is none of)"},
      {R"({"properties": {"a/b": {"type": 1}}})", ErrorCode::kInvalidArgument,
       R"(schema at "#/properties/a~1b": type 1)"},
      {R"({"properties": {"a": {"not": {}}}})", ErrorCode::kUnsupported,
       R"(schema at "#/properties/a": keyword "not" is not supported)"},
      {R"({"items": {"if": {}}})", ErrorCode::kUnsupported, R"("#/items": keyword "if")"},
      {R"({"patern": "x"})", ErrorCode::kUnsupported, R"(unknown keyword "patern")"},
      {R"({"uniqueItems": true})", ErrorCode::kUnsupported, "uniqueItems"},
      {R"({"contains": {}})", ErrorCode::kUnsupported, "contains"},
      {R"({"format": "idn-email"})", ErrorCode::kUnsupported,
       R"(format "idn-email" is not supported, these are: date, time)"},
      {R"({"format": "date", "pattern": "x"})", ErrorCode::kUnsupported, "pattern beside format"},
      {R"x({"pattern": "(?=x)"})x", ErrorCode::kUnsupported, R"(schema at "#/pattern": regex, byte 2: look-around)"},
      {R"x({"pattern": "a)"})x", ErrorCode::kInvalidArgument, "')' without '('"},
      {R"({"pattern": 1})", ErrorCode::kInvalidArgument, "pattern must be a string"},
      {R"({"$ref": "http://x/y"})", ErrorCode::kUnsupported, "$ref \"http://x/y\""},
      {R"({"$ref": "#/$defs/x"})", ErrorCode::kInvalidArgument, "leads nowhere"},
      {R"({"$ref": "#"})", ErrorCode::kInvalidArgument, "no text at all"},
      {R"({"anyOf": [{"$ref": "#"}, {"type": "null"}]})", ErrorCode::kInvalidArgument,
       R"(rule "#" begins with itself)"},
      {R"({"allOf": [{"$ref": "#"}]})", ErrorCode::kResourceExhausted, "leads to itself"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", ErrorCode::kUnsupported, "alternatives 0 and 1"},
      {R"({"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]})", ErrorCode::kUnsupported, "oneOf"},
      {R"({"anyOf": [], "type": "string"})", ErrorCode::kInvalidArgument, "anyOf must be an array"},
      {R"({"anyOf": [{}], "oneOf": [{}]})", ErrorCode::kUnsupported, "anyOf beside oneOf"},
      {R"({"allOf": [{"pattern": "a"}, {"pattern": "b"}]})", ErrorCode::kUnsupported, R"(two different "pattern")"},
      {R"({"enum": ["abc"], "minLength": 5})", ErrorCode::kUnsupported, R"("minLength" beside enum)"},
      {R"({"enum": []})", ErrorCode::kInvalidArgument, "enum must be an array"},
      {R"({"type": "number", "multipleOf": 0.01})", ErrorCode::kUnsupported, "multipleOf 0.01"},
      {R"({"type": "integer", "multipleOf": 0})", ErrorCode::kInvalidArgument, "multipleOf must be"},
      {R"({"type": "integer", "minimum": "1"})", ErrorCode::kInvalidArgument, "minimum must be a number"},
      {R"({"minLength": -1})", ErrorCode::kInvalidArgument, "minLength must be a whole number"},
      {R"({"minLength": 100000})", ErrorCode::kResourceExhausted, "minLength"},
      {R"({"minItems": 100000})", ErrorCode::kResourceExhausted, "minItems"},
      {R"({"minProperties": 3, "additionalProperties": {}})", ErrorCode::kUnsupported, "minProperties"},
      {R"({"minProperties": 2, "properties": {"a": {}}, "additionalProperties": {}})", ErrorCode::kUnsupported,
       "minPropert"},
      {R"({"properties": {"a": {}}, "patternProperties": {"a": {}}})", ErrorCode::kUnsupported,
       "matches the property \"a\""},
      {R"({"patternProperties": {"a": {}, "b": {"type": "null"}}})", ErrorCode::kUnsupported,
       "several patternProperties"},
      {R"({"type": "integer", "minimum": 2, "maximum": 1})", ErrorCode::kInvalidArgument, "no text at all"},
      {R"({"properties": {"a": false}, "required": ["a"]})", ErrorCode::kInvalidArgument, "no text at all"},
      {R"({"properties": {"a": 1}})", ErrorCode::kInvalidArgument, R"("#/properties/a": a schema must be)"},
      {R"({"required": "a"})", ErrorCode::kInvalidArgument, "required must be an array"},
  };
  for (const RefusedCase& c : cases) {
    const auto grammar = compile_json_schema(Json::parse(c.schema));
    ASSERT_FALSE(grammar.has_value()) << c.schema;
    EXPECT_EQ(grammar.error().code, c.code) << c.schema << ": " << grammar.error().message;
    EXPECT_THAT(grammar.error().message, HasSubstr(c.message)) << c.schema;
  }
}

TEST(JsonSchema, StopsAtItsLimits) {
  const auto expect_exhausted = [](const Json& schema, const JsonSchemaOptions& options, const char* message) {
    const auto grammar = compile_json_schema(schema, options);
    ASSERT_FALSE(grammar.has_value());
    EXPECT_EQ(grammar.error().code, ErrorCode::kResourceExhausted) << grammar.error().message;
    EXPECT_THAT(grammar.error().message, HasSubstr(message));
  };
  JsonSchemaOptions options;
  options.limits.max_source_bytes = 50;
  expect_exhausted({{"enum", {std::string(100, 'x')}}}, options, "bytes, at most 50");
  options = {};
  options.limits.max_states = 1000;
  expect_exhausted({{"type", "string"}, {"minLength", 1000}}, options, "states");
  options = {};
  options.limits.max_seconds = 0;
  expect_exhausted({{"type", "string"}}, options, "");

  Json deep = {{"type", "null"}};
  for (int i = 0; i < 200; ++i) deep = {{"items", deep}};
  expect_exhausted(deep, {}, "nested deeper");
  // allOf that doubles at every level.
  Json doubling = {{"$defs", {{"d0", {{"properties", {{"a", {{"type", "integer"}}}}}}}}}};
  for (int i = 1; i < 40; ++i) {
    const Json below = {{"$ref", fmt::format("#/$defs/d{}", i - 1)}};
    doubling["$defs"][fmt::format("d{}", i)] = {{"allOf", {below, below}}};
  }
  doubling["$ref"] = "#/$defs/d39";
  expect_exhausted(doubling, {}, "too");
}

}  // namespace
}  // namespace hadal
