// The text side of models/nano: its tokenizer against the ids in golden_nano.json, its template against DeepSeek-R1's.
#include <gtest/gtest.h>

#include <filesystem>

#include "support/test_files.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace hadal {
namespace {

std::filesystem::path nano_dir() { return source_dir() / "models" / "nano"; }

#define HADAL_NANO_OR_SKIP(name) \
  if (!std::filesystem::exists(nano_dir() / (name))) GTEST_SKIP() << "models/nano/" << (name) << " is not there"

TEST(NanoText, EncodesItsGoldenPrompts) {
  HADAL_NANO_OR_SKIP("golden_nano.json");
  const auto tokenizer = Tokenizer::load(nano_dir());
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  int num_cases = 0;
  const Json golden = load_json(nano_dir() / "golden_nano.json");
  for (const Json& row : golden["cases"]) {
    const auto ids = (*tokenizer)->encode(row["prompt"].get<std::string>(), {.add_special_tokens = true});
    ASSERT_TRUE(ids.has_value()) << ids.error().message;
    EXPECT_EQ(*ids, row["prompt_ids"].get<std::vector<int32_t>>()) << row["name"];
    EXPECT_EQ((*tokenizer)->decode(row["ids"].get<std::vector<int32_t>>(), false), row["text"].get<std::string>());
    ++num_cases;
  }
  EXPECT_GT(num_cases, 0);
}

TEST(NanoText, TemplateRendersLikeDeepSeekR1) {
  HADAL_NANO_OR_SKIP("tokenizer_config.json");
  HADAL_SPEC_DATA_OR_SKIP(path, "golden_chat_templates.json");
  const auto tokenizer = Tokenizer::load(nano_dir());
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  const auto chat_template = ChatTemplate::parse((*tokenizer)->chat_template());
  ASSERT_TRUE(chat_template.has_value()) << chat_template.error().message;
  int num_cases = 0;
  for (const Json& golden : load_json(path)) {
    if (golden["template"] != "chat_template_deepseek-r1.jinja") continue;
    const auto text = chat_template->render(golden["context"]);
    ASSERT_TRUE(text.has_value()) << golden["case"] << ": " << text.error().message;
    EXPECT_EQ(*text, golden["expected"].get<std::string>()) << golden["case"];
    ++num_cases;
  }
  EXPECT_EQ(num_cases, 14);
}

}  // namespace
}  // namespace hadal
