#include "bench/serve_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/test_files.h"

namespace hadal {
namespace {

using ::testing::HasSubstr;

const Tokenizer& nano() {
  static const auto tokenizer = Tokenizer::load(source_dir() / "models/nano");
  return **tokenizer;
}

std::string described(const ServePrompt& prompt) {
  return fmt::format("{}|{}|{}", prompt.text, prompt.num_prompt_tokens, prompt.num_output_tokens);
}

std::vector<std::string> described(const std::vector<ServePrompt>& prompts) {
  std::vector<std::string> out;
  for (const ServePrompt& prompt : prompts) out.push_back(described(prompt));
  return out;
}

// The expected prompts come from NumPy and the Hugging Face tokenizer by the rules of the header.
TEST(RandomPrompts, TheOldRuleDrawForDraw) {
  EXPECT_EQ(random_vocab_size(nano(), source_dir() / "models/nano"), 2000);
  NumpyRandom random(0);
  const auto prompts = random_prompts(
      {.input_len = 16, .output_len = 8, .range_ratio = 0.5, .prefix_len = 3, .vocab_size = 2000}, 3, nano(), random);
  ASSERT_TRUE(prompts) << prompts.error().message;
  EXPECT_THAT(
      described(*prompts),
      ::testing::ElementsAre(" shells\uFFFD巴西\uFFFD国\uFFFD英国 u anZezil\uFFFD|11|5",
                             " shells\uFFFD巴西ong\uFFFD\uFFFD弹\uFFFD颗弹\uFFFD颗弹珠 she个鸡蛋个鸡蛋付ps|14|7",
                             " shells\uFFFD巴西 Tom每组么\uFFFD是哪大 grouphi\uFFFD出列出ell|14|6"));
  // Gaps go on with the same stream.
  EXPECT_NEAR(random.gamma(1.0, 0.25), 0.014596167695175835, 1e-14);
}

TEST(RandomPrompts, TheMidRuleEncodesCutsAndDecodesAgain) {
  NumpyRandom random(7);
  const auto prompts = random_prompts(
      {.rule = RandomRule::kMid, .input_len = 12, .output_len = 8, .range_ratio = 0.5, .vocab_size = 2000}, 2, nano(),
      random);
  ASSERT_TRUE(prompts) << prompts.error().message;
  EXPECT_THAT(described(*prompts), ::testing::ElementsAre("\x14\x15\x16\x17\x18\x19\x1A\x1B\x1C\x1D|10|10",
                                                          " want\uFFFD\uFFFD要 What\uFFFD sum\uFFFD|15|7"));
}

TEST(RandomPrompts, LengthsOfRatioOneAreFixedAndDrawNothing) {
  NumpyRandom random(0), fresh(0);
  const auto prompts = random_prompts({.input_len = 5, .output_len = 7, .vocab_size = 2000}, 2, nano(), random);
  ASSERT_TRUE(prompts);
  for (const ServePrompt& prompt : *prompts) EXPECT_EQ(prompt.num_prompt_tokens * 100 + prompt.num_output_tokens, 507);
  fresh.randint(0, 2000);
  fresh.randint(0, 2000);
  EXPECT_EQ(random.randint(0, 1 << 20), fresh.randint(0, 1 << 20));
}

TEST(RandomPrompts, RatiosThatGiveNoLengthAreRefused) {
  NumpyRandom random(0);
  const std::pair<RandomPromptOptions, const char*> cases[] = {
      {{.range_ratio = 1.5, .vocab_size = 9}, "must be in [0, 1] under this rule"},
      {{.range_ratio = -0.1, .vocab_size = 9}, "must be in [0, 1]"},
      {{.rule = RandomRule::kMid, .range_ratio = 1.0, .vocab_size = 9}, "must be in [0, 1) under this rule"},
      {{.rule = RandomRule::kMid, .input_len = 1, .range_ratio = 0, .vocab_size = 9, .special_tokens = 1}, "too short"},
      {{.rule = RandomRule::kMid, .output_len = 1, .range_ratio = 0.5, .vocab_size = 9}, "too short"},
      {{.vocab_size = 0}, "no tokens"},
  };
  for (const auto& [options, message] : cases) {
    const auto prompts = random_prompts(options, 1, nano(), random);
    ASSERT_FALSE(prompts) << message;
    EXPECT_EQ(prompts.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(prompts.error().message, HasSubstr(message));
  }
}

Json conversation(std::initializer_list<std::string> values) {
  Json turns = Json::array();
  for (const std::string& value : values) turns.push_back({{"from", "human"}, {"value", value}});
  return {{"conversations", turns}};
}

std::string words(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += " Tom";
  return text;
}

TEST(ShareGptPrompts, TwoTurnsOfFittingLengthInPythonsOrder) {
  const Json file = {conversation({words(10), words(20)}),
                     conversation({words(10)}),
                     conversation({words(11), words(21), "more"}),
                     conversation({"x", words(9)}),
                     conversation({words(12), "y"}),
                     conversation({words(2000), words(9)}),
                     conversation({words(900), words(1500)}),
                     conversation({words(13), words(23)})};
  const int64_t bos = nano().add_bos() ? 1 : 0;
  PythonRandom random(0);
  std::vector<int> order = {0, 1, 2, 3, 4, 5, 6};
  PythonRandom(0).shuffle(order);
  const auto prompts = sharegpt_prompts(file.dump(), 10, {}, nano(), random);
  ASSERT_TRUE(prompts) << prompts.error().message;
  std::vector<std::string> expected;
  for (const int i : order) {
    const int kept = i == 0 ? 10 : i == 1 ? 11 : i == 6 ? 13 : 0;
    if (kept > 0) expected.push_back(fmt::format("{}|{}|{}", words(kept), kept + bos, kept + 10 + bos));
  }
  EXPECT_EQ(described(*prompts), expected);
  PythonRandom again(0);
  const auto fixed = sharegpt_prompts(file.dump(), 2, 1, nano(), again);
  ASSERT_TRUE(fixed);
  ASSERT_EQ(fixed->size(), 2u);
  EXPECT_EQ(fixed->front().num_output_tokens, 1);
}

TEST(ShareGptPrompts, DamagedFilesAreRefused) {
  PythonRandom random(0);
  for (const auto& [text, message] : std::initializer_list<std::pair<const char*, const char*>>{
           {"", ""},
           {"{}", "list of conversations"},
           {"[3]", "entry 0"},
           {R"([{"conversations":3}])", "entry 0"},
           {R"([{"conversations":[3,4]}])", "turn 0 has no value"},
           {R"([{"conversations":[{"value":"a"},{"value":1}]}])", "turn 1 has no value"},
           {"[]", "no conversation of fitting length"}}) {
    const auto prompts = sharegpt_prompts(text, 1, {}, nano(), random);
    ASSERT_FALSE(prompts) << text;
    EXPECT_THAT(prompts.error().message, HasSubstr(message));
  }
}

TEST(SonnetPrompts, SharedLinesThenDrawnOnes) {
  const auto chat_template = ChatTemplate::parse(nano().chat_template());
  ASSERT_TRUE(chat_template);
  std::string poem;
  for (int i = 0; i < 30; ++i) poem += fmt::format("Tom has {} eggs\n", i);
  PythonRandom random(3);
  const SonnetPromptOptions options = {.input_len = 300, .output_len = 9, .prefix_len = 100};
  const auto prompts = sonnet_prompts(poem, 3, options, nano(), *chat_template, random);
  ASSERT_TRUE(prompts) << prompts.error().message;
  ASSERT_EQ(prompts->size(), 3u);
  const std::string& first = prompts->front().text;
  EXPECT_THAT(first, HasSubstr("Tom has 0 eggs\nTom has 1 eggs\n"));
  EXPECT_NE(first, (*prompts)[1].text);
  // Lines are counted alone, each with a BOS that the prompt lacks; two roundings to whole lines of at most 12 tokens.
  int64_t num_lines = 0;
  for (size_t at = 0; (at = first.find("Tom has", at)) != std::string::npos; ++at) ++num_lines;
  EXPECT_NEAR(static_cast<double>(prompts->front().num_prompt_tokens + num_lines), 300, 2 * 12);
  EXPECT_EQ(prompts->front().num_output_tokens, 9);
  PythonRandom again(3);
  const auto bare = sonnet_prompts(poem, 1, {.input_len = 300, .output_len = 9, .prefix_len = 100, .templated = false},
                                   nano(), *chat_template, again);
  EXPECT_THAT(first, HasSubstr(bare->front().text.substr(0, bare->front().text.size() - 1)));
  EXPECT_LT(bare->front().text.size(), first.size());
  for (const SonnetPromptOptions& bad : {SonnetPromptOptions{.input_len = 100, .prefix_len = 100},
                                         SonnetPromptOptions{.input_len = 100, .prefix_len = 5}}) {
    EXPECT_EQ(sonnet_prompts(poem, 1, bad, nano(), *chat_template, random).error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_FALSE(sonnet_prompts("", 1, options, nano(), *chat_template, random));
}

}  // namespace
}  // namespace hadal
