#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "base/json.h"
#include "formats/tokenizer_config.h"
#include "formats/tokenizer_json.h"

namespace hadal {
namespace {

using testing::HasSubstr;

// The smallest file that is accepted: three letters, two merges, one added token.
Json small_tokenizer() {
  const auto parsed = parse_json(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 5, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": true, "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": []},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\p{N}"}, "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
    "post_processor": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
              "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
              "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}, "merges": ["a b", ["ab", "c"]]}})");
  return *parsed;
}

TEST(TokenizerJson, ReadsBothSpellingsOfMerges) {
  const auto tokenizer = parse_tokenizer_json(dump_json(small_tokenizer()));
  ASSERT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  EXPECT_THAT(tokenizer->vocab, testing::ElementsAre("a", "b", "c", "ab", "abc"));
  ASSERT_EQ(tokenizer->merges.size(), 2u);
  EXPECT_EQ(tokenizer->merges[1].left, 3);
  EXPECT_EQ(tokenizer->merges[1].right, 2);
  EXPECT_EQ(tokenizer->merges[1].merged, 4);
  ASSERT_EQ(tokenizer->added_tokens.size(), 1u);
  EXPECT_EQ(tokenizer->added_tokens[0].content, "<s>");
  EXPECT_TRUE(tokenizer->added_tokens[0].special && tokenizer->added_tokens[0].normalized);
  EXPECT_THAT(tokenizer->split_patterns, testing::ElementsAre("\\p{N}"));
}

TEST(TokenizerJson, RefusesByName) {
  struct Change {
    std::function<void(Json&)> apply;
    const char* named;
  };
  const Change changes[] = {
      {[](Json& t) { t["model"]["type"] = "Unigram"; }, "Unigram"},
      {[](Json& t) { t["model"]["dropout"] = 0.1; }, "dropout"},
      {[](Json& t) { t["model"]["byte_fallback"] = true; }, "byte_fallback"},
      {[](Json& t) { t["model"]["continuing_subword_prefix"] = "##"; }, "continuing_subword_prefix"},
      {[](Json& t) { t["model"]["vocab"]["x"] = 4; }, "id 4"},
      {[](Json& t) { t["model"]["vocab"]["x"] = 7; }, "\"x\""},
      {[](Json& t) { t["model"]["vocab"]["x"] = -1; }, "\"x\""},
      {[](Json& t) { t["model"]["vocab"]["x"] = 2.5; }, "\"x\""},
      {[](Json& t) { t["model"]["vocab"]["x"] = 99999999999; }, "\"x\""},
      {[](Json& t) { t["model"]["merges"].push_back("a z"); }, "\"z\""},
      {[](Json& t) { t["model"]["merges"].push_back("c a"); }, "\"ca\""},
      {[](Json& t) { t["model"]["merges"].push_back("abc"); }, "merges[2]"},
      {[](Json& t) { t["model"]["merges"].push_back("a b c"); }, "merges[2]"},
      {[](Json& t) { t["model"].erase("vocab"); }, "vocab"},
      {[](Json& t) {
         t["normalizer"] = {{"type", "NFC"}};
       },
       "NFC"},
      {[](Json& t) {
         t["truncation"] = {{"max_length", 5}};
       },
       "truncation"},
      {[](Json& t) { t["decoder"]["type"] = "Metaspace"; }, "Metaspace"},
      {[](Json& t) { t["post_processor"]["type"] = "TemplateProcessing"; }, "TemplateProcessing"},
      {[](Json& t) { t["pre_tokenizer"] = nullptr; }, "ByteLevel"},
      {[](Json& t) { t["pre_tokenizer"]["pretokenizers"][0]["type"] = "Digits"; }, "Digits"},
      {[](Json& t) { t["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; }, "Removed"},
      {[](Json& t) { t["pre_tokenizer"]["pretokenizers"][0]["invert"] = true; }, "invert"},
      {[](Json& t) {
         t["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"String", "x"}};
       },
       "Regex"},
      {[](Json& t) { t["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = true; }, "use_regex"},
      {[](Json& t) { t["pre_tokenizer"]["pretokenizers"][1].erase("add_prefix_space"); }, "add_prefix_space"},
      {[](Json& t) { t["added_tokens"][0]["lstrip"] = true; }, "lstrip"},
      {[](Json& t) { t["added_tokens"][0]["single_word"] = true; }, "single_word"},
      {[](Json& t) { t["added_tokens"][0]["content"] = ""; }, "added_tokens[0]"},
      {[](Json& t) { t["added_tokens"][0]["id"] = 6; }, "<s>"},
      {[](Json& t) { t["added_tokens"].push_back(t["added_tokens"][0]); }, "id 5"},
  };
  for (const Change& change : changes) {
    Json tokenizer = small_tokenizer();
    change.apply(tokenizer);
    const auto parsed = parse_tokenizer_json(dump_json(tokenizer));
    ASSERT_FALSE(parsed.has_value()) << change.named;
    EXPECT_THAT(parsed.error().message, HasSubstr(change.named));
  }
}

TEST(TokenizerConfig, ReadsBothSpellingsOfTokensAndTemplates) {
  const auto config = parse_tokenizer_config(R"({
    "add_bos_token": true, "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "unk_token": null,
    "model_max_length": 1000000000000000019884624838656,
    "chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}],
    "added_tokens_decoder": {"11": {"content": "y", "special": true}, "2": {"content": "x"}}, "unknown_key": 1})");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->add_bos_token, true);
  EXPECT_FALSE(config->add_eos_token.has_value());
  EXPECT_EQ(config->bos_token, "<s>");
  EXPECT_EQ(config->eos_token, "</s>");
  EXPECT_FALSE(config->unk_token.has_value());
  EXPECT_EQ(config->model_max_length, 0);
  ASSERT_EQ(config->chat_templates.size(), 2u);
  EXPECT_EQ(config->chat_templates[1].source, "t");
  ASSERT_EQ(config->added_tokens.size(), 2u);
  EXPECT_EQ(config->added_tokens[0].id, 2);
  EXPECT_TRUE(config->added_tokens[1].special);
}

TEST(TokenizerConfig, RefusesWrongTypes) {
  for (const char* text :
       {R"([])", R"({"add_bos_token": 1})", R"({"bos_token": 1})", R"({"eos_token": {"x": 1}})",
        R"({"model_max_length": -1})", R"({"model_max_length": "x"})", R"({"chat_template": 1})",
        R"({"chat_template": [{"name": "a"}]})", R"({"added_tokens_decoder": []})",
        R"({"added_tokens_decoder": {"x": {"content": "a"}}})", R"({"added_tokens_decoder": {"-1": {"content": "a"}}})",
        R"({"added_tokens_decoder": {"1": {"content": "a"}, "01": {"content": "b"}}})",
        R"({"added_tokens_decoder": {"1": {}}})"}) {
    EXPECT_FALSE(parse_tokenizer_config(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace hadal
