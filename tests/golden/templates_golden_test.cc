// Chat templates of all supported models against renders made by Jinja2.
#include <gtest/gtest.h>

#include <map>

#include "base/file.h"
#include "support/test_files.h"
#include "text/chat_template.h"

namespace hadal {
namespace {

ChatTemplate load_template(const std::string& name) {
  auto source = read_file(*spec_data(name), 1 << 20);
  EXPECT_TRUE(source.has_value()) << source.error().message;
  auto parsed = ChatTemplate::parse(std::move(*source));
  EXPECT_TRUE(parsed.has_value()) << name << ": " << parsed.error().message;
  return std::move(*parsed);
}

// "TypeError: text" -> "text".
std::string error_text(const std::string& error) { return error.substr(error.find(": ") + 2); }

TEST(GoldenTemplates, RendersEveryCase) {
  HADAL_SPEC_DATA_OR_SKIP(path, "golden_chat_templates.json");
  const Json cases = load_json(path);
  std::map<std::string, ChatTemplate> templates;
  int num_equal = 0, num_equal_errors = 0;
  for (const Json& golden : cases) {
    const std::string name = golden["template"];
    if (!templates.contains(name)) templates.emplace(name, load_template(name));
    const auto text = templates.at(name).render(golden["context"]);
    const std::string where = name + " " + golden["case"].get<std::string>();
    if (golden.contains("error")) {
      ASSERT_FALSE(text.has_value()) << where;
      const std::string expected = error_text(golden["error"]);
      EXPECT_TRUE(text.error().message.ends_with(expected)) << where << ": " << text.error().message;
      num_equal_errors += text.error().message.ends_with(expected);
      continue;
    }
    ASSERT_TRUE(text.has_value()) << where << ": " << text.error().message;
    EXPECT_EQ(*text, golden["expected"].get<std::string>()) << where;
    num_equal += *text == golden["expected"].get<std::string>();
  }
  std::printf("golden.templates: %d renders and %d errors of %zu cases equal, %zu templates\n", num_equal,
              num_equal_errors, cases.size(), templates.size());
  EXPECT_EQ(cases.size(), 205u);
  EXPECT_EQ(num_equal + num_equal_errors, 205);
}

// Section 8.1 of the specification: what each template wants of tool calls and contents.
TEST(GoldenTemplates, FindsTraits) {
  if (!spec_data("chat_template_deepseek-v3.jinja")) GTEST_SKIP() << skip_reason("chat_template_deepseek-v3.jinja");
  const struct {
    const char* name;
    bool arguments_as_object, content_parts, null_content, tools_in_prompt;
  } expected[] = {
      {"chat_template_deepseek-v3.jinja", false, false, true, false},
      {"chat_template_deepseek-r1.jinja", false, false, false, false},
      {"chat_template_deepseek-r1-0528.jinja", false, false, false, false},
      {"chat_template_deepseek-v3.1.jinja", false, false, false, false},
      {"chat_template_deepseek-v3_vllm-tools.jinja", true, false, false, true},
      {"chat_template_deepseek-r1_vllm-tools.jinja", true, false, false, true},
      {"chat_template_deepseek-v3.1_vllm-tools.jinja", true, false, false, true},
      {"chat_template_kimi-k2-instruct.jinja", false, true, false, true},
      {"chat_template_kimi-k2-instruct-0905.jinja", false, true, false, true},
      {"chat_template_kimi-k2-instruct_initial_llamacpp.jinja", true, true, false, true},
      {"chat_template_moonlight-16b-a3b-instruct.jinja", false, false, false, false},
  };
  for (const auto& row : expected) {
    const ChatTemplate chat_template = load_template(row.name);
    const ChatTemplate::Traits& traits = chat_template.traits();
    EXPECT_EQ(traits.arguments_as_object, row.arguments_as_object) << row.name;
    EXPECT_EQ(traits.content_parts, row.content_parts) << row.name;
    EXPECT_EQ(traits.null_content_with_tool_calls, row.null_content) << row.name;
    EXPECT_EQ(traits.tools_in_prompt, row.tools_in_prompt) << row.name;
  }
}

}  // namespace
}  // namespace hadal
