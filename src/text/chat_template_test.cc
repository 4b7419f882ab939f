#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hadal {
namespace {

using testing::HasSubstr;

Expected<std::string> render(std::string source, const Json& context = Json::object()) {
  auto parsed = ChatTemplate::parse(std::move(source));
  if (!parsed) return forward_error(std::move(parsed));
  return parsed->render(context);
}

TEST(ChatTemplate, ErrorsNameTheLineAndTheTemplatesWords) {
  const auto raised = render("a\n{% if true %}\n{{ raise_exception('no system role') }}\n{% endif %}");
  ASSERT_FALSE(raised.has_value());
  EXPECT_EQ(raised.error().message, "chat template: line 3: no system role");
  EXPECT_EQ(raised.error().code, ErrorCode::kInvalidArgument);
  const auto broken = render("\n\n{{ 1 | lenght }}");
  ASSERT_FALSE(broken.has_value());
  EXPECT_THAT(broken.error().message, HasSubstr("line 3: no filter named \"lenght\" (did you mean \"length\"?)"));
}

TEST(ChatTemplate, RefusesWhatTheSubsetLacks) {
  for (const char* source : {"{% include 'x' %}", "{% filter upper %}a{% endfilter %}", "{% call f() %}{% endcall %}",
                             "{% for x in y recursive %}{% endfor %}", "{{ f(*a) }}", "{{ caller() }}",
                             "{% for i in [1] %}{% macro m() %}{% endmacro %}{% endfor %}", "{{ 0x10 }}", "{{ é }}"}) {
    const auto parsed = ChatTemplate::parse(source);
    ASSERT_FALSE(parsed.has_value()) << source;
  }
}

// Each of these would run for minutes, fill the memory or the stack.
TEST(ChatTemplate, HostileTemplatesEnd) {
  const std::string nested_calls = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
  std::string deep_parentheses = "{{ ";
  for (int i = 0; i < 100'000; ++i) deep_parentheses += '(';
  std::string long_sum = "{{ 1";
  for (int i = 0; i < 100'000; ++i) long_sum += "+1";
  std::string deep_blocks;
  for (int i = 0; i < 100'000; ++i) deep_blocks += "{% if 1 %}";
  const std::string sources[] = {
      nested_calls,
      deep_parentheses,
      long_sum + " }}",
      deep_blocks,
      "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}"
      "{{ ns.l | tojson }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}"
      "{{ ns.l == [ns.l[0], ns.l[1]] and ns.l == [ns.l[0], [2]] }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(1000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
      "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
      "{{ 'x' * 9000000000 }}",
      "{{ 'x' * 1000000000 * 1000000000 }}",
      "{{ 'aaaa'.replace('a', 'b' * 2000000000) }}",
      "{% for i in range(90000) %}{{ 'x' * 100000 }}{% endfor %}",
      "{{ 2 ** 1000 }}",
      "{{ 99999999999999999999999 }}",
      "{% set ns = namespace(n=1) %}{% for i in range(200) %}{% set ns.n = ns.n * 3 %}{% endfor %}",
  };
  for (const std::string& source : sources) {
    const auto text = render(source);
    EXPECT_FALSE(text.has_value()) << source.substr(0, 100);
  }
}

TEST(ChatTemplate, ANamespaceMayHoldItself) {
  EXPECT_EQ(*render("{% set ns = namespace(a=1) %}{% set ns.b = [ns] %}{{ ns.b[0].a }}"), "1");
}

TEST(ChatTemplate, StrftimeUsesTheGivenTime) {
  const auto parsed = ChatTemplate::parse("{{ strftime_now('%Y') }}");
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(*parsed->render(Json::object(), {}, std::time_t{86400 * 400}), "1971");
}

TEST(ChatTemplate, KnowsItsVariables) {
  const auto parsed = ChatTemplate::parse("{% set x = thinking %}{{ x }}");
  EXPECT_TRUE(parsed->references("thinking"));
  EXPECT_FALSE(parsed->references("enable_thinking"));
}

// ---- messages

constexpr const char* kConcatenates =
    "{% for m in messages %}{{ m.role + ':' + m.content }}{% for t in m.tool_calls %}{{ t.type + t.function.name + "
    "t.function.arguments }}{% endfor %}{% endfor %}";
constexpr const char* kToJson =
    "{% for m in messages %}{{ m.role ~ m.content }}{% for t in m.tool_calls %}{{ t.function.name ~ "
    "t.function.arguments | tojson }}{% endfor %}{% endfor %}";

Json call_message(const Json& arguments) {
  return {{"role", "assistant"},
          {"content", nullptr},
          {"name", nullptr},
          {"tool_calls", Json::array({{{"id", "c"}, {"function", {{"name", "f"}, {"arguments", arguments}}}}})}};
}

TEST(NormalizeMessages, GivesTheTemplateWhatItTakes) {
  const auto concatenates = ChatTemplate::parse(kConcatenates);
  const auto to_json = ChatTemplate::parse(kToJson);
  ASSERT_TRUE(concatenates && to_json);
  EXPECT_FALSE(concatenates->arguments_as_object());
  EXPECT_TRUE(to_json->arguments_as_object());

  const auto as_text = normalize_messages(Json::array({call_message({{"a", 1}})}), *concatenates);
  ASSERT_TRUE(as_text.has_value()) << as_text.error().message;
  EXPECT_EQ(
      dump_json((*as_text)[0]),
      R"({"role":"assistant","content":"","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"a\": 1}"},)"
      R"("type":"function"}]})");
  const auto as_object = normalize_messages(Json::array({call_message(R"({"a":1})")}), *to_json);
  ASSERT_TRUE(as_object.has_value()) << as_object.error().message;
  EXPECT_EQ((*as_object)[0]["tool_calls"][0]["function"]["arguments"], Json({{"a", 1}}));
  EXPECT_EQ(
      (*normalize_messages(Json::array({call_message("")}), *to_json))[0]["tool_calls"][0]["function"]["arguments"],
      Json::object());
  EXPECT_EQ((*normalize_messages(Json::array({call_message(nullptr)}),
                                 *concatenates))[0]["tool_calls"][0]["function"]["arguments"],
            "{}");
}

TEST(NormalizeMessages, JoinsTextPartsAndRefusesOthers) {
  const auto strings = ChatTemplate::parse(kConcatenates);
  const Json text_part = {{"type", "text"}, {"text", "a"}};
  const Json message = {{"role", "user"}, {"content", Json::array({text_part, text_part})}};
  EXPECT_EQ((*normalize_messages(Json::array({message}), *strings))[0]["content"], "a\na");
  const Json image = {{"role", "user"},
                      {"content", Json::array({text_part, {{"type", "image_url"}, {"image_url", "x"}}})}};
  const auto refused = normalize_messages(Json::array({message, image}), *strings);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().message, "messages[1]: content part 1 is not text; this model reads text only");
  const auto lists = ChatTemplate::parse(
      "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}"
      "{% endfor %}{% endif %}{% endfor %}");
  EXPECT_TRUE(lists->traits().content_parts);
  EXPECT_EQ((*normalize_messages(Json::array({message}), *lists))[0]["content"].size(), 2u);
}

TEST(NormalizeMessages, RefusesBrokenMessages) {
  const auto parsed = ChatTemplate::parse(kToJson);
  for (const Json& message : {Json("x"), Json::object(), Json{{"role", 1}}, Json{{"role", "user"}, {"content", 5}},
                              Json{{"role", "assistant"}, {"tool_calls", "x"}},
                              Json{{"role", "assistant"}, {"tool_calls", Json::array({1})}}, call_message("{broken")}) {
    const auto normalized = normalize_messages(Json::array({message}), *parsed);
    ASSERT_FALSE(normalized.has_value()) << message;
    EXPECT_EQ(normalized.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(normalized.error().message, testing::StartsWith("messages[0]: "));
  }
}

TEST(TemplateContext, MapsThinkingAndGuardsReservedNames) {
  const auto parsed = ChatTemplate::parse("{{ thinking }}");
  TemplateInput input{.messages = Json::array(), .kwargs = {{"enable_thinking", true}}};
  EXPECT_EQ(*parsed->render(*template_context(input, *parsed)), "True");
  input.kwargs = {{"thinking", false}, {"enable_thinking", true}};
  EXPECT_EQ(*parsed->render(*template_context(input, *parsed)), "False");
  input.kwargs = {{"messages", 1}};
  EXPECT_FALSE(template_context(input, *parsed).has_value());
  input.kwargs = Json::array();
  EXPECT_FALSE(template_context(input, *parsed).has_value());
}

}  // namespace
}  // namespace hadal
