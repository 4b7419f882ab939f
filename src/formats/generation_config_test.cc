#include "formats/generation_config.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "support/test_files.h"

namespace hadal {
namespace {

TEST(GenerationConfig, ReadsThePublishedFiles) {
  HADAL_SPEC_DATA_OR_SKIP(r1_path, "generation_config_deepseek-r1.json");
  const auto r1 = parse_generation_config(*read_file(r1_path, 1 << 20));
  ASSERT_TRUE(r1.has_value()) << r1.error().message;
  EXPECT_EQ(r1->do_sample, true);
  EXPECT_EQ(r1->temperature, 0.6);
  EXPECT_EQ(r1->top_p, 0.95);
  EXPECT_EQ(r1->bos_token_id, 0);
  EXPECT_EQ(r1->eos_token_id, std::vector<int64_t>{1});
  EXPECT_FALSE(r1->top_k.has_value());
  EXPECT_EQ(r1->ignored_keys, (std::vector<std::string>{"_from_model_config", "transformers_version"}));

  HADAL_SPEC_DATA_OR_SKIP(k2_path, "generation_config_kimi-k2-instruct-0905.json");
  const auto k2 = parse_generation_config(*read_file(k2_path, 1 << 20));
  ASSERT_TRUE(k2.has_value()) << k2.error().message;
  EXPECT_EQ(k2->max_length, 131072);
  EXPECT_EQ(k2->eos_token_id, std::vector<int64_t>{163586});
}

TEST(GenerationConfig, AcceptsLists) {
  const auto config = parse_generation_config(R"({"eos_token_id":[3,5],"pad_token_id":null,"top_k":50})");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->eos_token_id, (std::vector<int64_t>{3, 5}));
  EXPECT_FALSE(config->pad_token_id.has_value());
  EXPECT_EQ(config->top_k, 50);
}

TEST(GenerationConfig, RefusalsNameTheKey) {
  for (const auto& [text, key] :
       std::vector<std::pair<const char*, const char*>>{{R"({"temperature":-1})", "temperature is -1"},
                                                        {R"({"temperature":"hot"})", "temperature is \"hot\""},
                                                        {R"({"top_p":0})", "top_p is 0"},
                                                        {R"({"top_p":1.5})", "top_p is 1.5"},
                                                        {R"({"top_k":-1})", "top_k is -1"},
                                                        {R"({"repetition_penalty":0})", "repetition_penalty is 0"},
                                                        {R"({"max_length":0})", "max_length is 0"},
                                                        {R"({"do_sample":"yes"})", "do_sample is \"yes\""},
                                                        {R"({"eos_token_id":[1,"x"]})", "eos_token_id is [1,\"x\"]"},
                                                        {R"([1])", "array at the top"},
                                                        {R"({"a":)", "not valid JSON"}}) {
    const auto config = parse_generation_config(text);
    ASSERT_FALSE(config.has_value()) << text;
    EXPECT_NE(config.error().message.find(key), std::string::npos) << config.error().message;
  }
}

TEST(GenerationConfig, AnAbsentFileIsAnEmptyConfigAndABrokenOneIsNamed) {
  const TempDir dir;
  const auto absent = load_generation_config(dir.path());
  ASSERT_TRUE(absent.has_value());
  EXPECT_FALSE(absent->temperature.has_value());
  const auto path = dir.path() / "generation_config.json";
  ASSERT_TRUE(write_file_atomically(path, R"({"top_p":7})").has_value());
  EXPECT_EQ(load_generation_config(dir.path()).error().message.find(path.string()), 0u);
}

}  // namespace
}  // namespace hadal
