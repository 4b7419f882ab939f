// DeepSeek-V3's real tokenizer against ids made by the Hugging Face tokenizers library.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "support/test_files.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;

class GoldenTokenizer : public testing::Test {
 protected:
  // Lays the data files out as a model folder.
  void SetUp() override {
    HADAL_SPEC_DATA_OR_SKIP(tokenizer_path, "deepseek_v3_tokenizer.json");
    HADAL_SPEC_DATA_OR_SKIP(config_path, "deepseek_v3_tokenizer_config.json");
    fs::create_symlink(fs::absolute(tokenizer_path), dir_.path() / "tokenizer.json");
    fs::create_symlink(fs::absolute(config_path), dir_.path() / "tokenizer_config.json");
    const auto start = std::chrono::steady_clock::now();
    auto loaded = Tokenizer::load(dir_.path());
    load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
    tokenizer_ = std::move(*loaded);
  }

  TempDir dir_;
  std::unique_ptr<Tokenizer> tokenizer_;
  double load_seconds_ = 0;
};

TEST_F(GoldenTokenizer, EncodesEveryVector) {
  HADAL_SPEC_DATA_OR_SKIP(path, "golden_tokenizer_deepseek_v3.json");
  const Json cases = load_json(path)["cases"];
  int num_equal = 0;
  for (const Json& golden : cases) {
    const std::string text = golden["text"];
    const auto ids = tokenizer_->encode(text, {});
    ASSERT_TRUE(ids.has_value()) << ids.error().message;
    const auto expected = golden["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(*ids, expected) << dump_json(golden["text"]);
    num_equal += *ids == expected;
  }
  std::printf("golden.tokenizer: %d of %zu vectors equal, loaded in %.3f s\n", num_equal, cases.size(), load_seconds_);
  EXPECT_EQ(cases.size(), 88u);
}

TEST_F(GoldenTokenizer, DecodingRestoresEveryText) {
  HADAL_SPEC_DATA_OR_SKIP(path, "golden_tokenizer_deepseek_v3.json");
  const Json cases = load_json(path)["cases"];
  for (const Json& golden : cases) {
    const std::string text = golden["text"];
    const auto ids = golden["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_->decode(ids, false), text);
    StreamingDetokenizer stream(*tokenizer_, false);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.push(id);
    streamed += stream.flush();
    EXPECT_EQ(streamed, text);
  }
}

// Facts of the specification's table of added tokens.
TEST_F(GoldenTokenizer, KnowsSizesAndSpecialTokens) {
  EXPECT_EQ(tokenizer_->vocab_size(), 128815);
  EXPECT_EQ(tokenizer_->bos_token_id(), 0);
  EXPECT_EQ(tokenizer_->eos_token_id(), 1);
  EXPECT_TRUE(tokenizer_->add_bos());
  EXPECT_EQ(tokenizer_->model_max_length(), 131072);
  EXPECT_EQ(tokenizer_->token_id("<｜User｜>"), 128803);
  EXPECT_TRUE(tokenizer_->is_added(128803));
  EXPECT_FALSE(tokenizer_->is_special(128803));
  EXPECT_TRUE(tokenizer_->is_special(1));
  EXPECT_EQ(tokenizer_->token_id("Ġt"), 259);
  EXPECT_EQ(tokenizer_->token_string(259), "Ġt");
  EXPECT_EQ(tokenizer_->token_bytes(259), " t");
  EXPECT_EQ(tokenizer_->token_bytes(128815), "");
  EXPECT_NE(tokenizer_->chat_template(), "");
  EXPECT_EQ(tokenizer_->decode(std::vector<int32_t>{0, 128803, 90, 1}, true), "<｜User｜>x");
}

TEST_F(GoldenTokenizer, PrependsBosOnce) {
  const auto encode = [&](std::string_view text) { return *tokenizer_->encode(text, {.add_special_tokens = true}); };
  EXPECT_EQ(encode("Hello"), (std::vector<int32_t>{0, 19923}));
  EXPECT_EQ(encode("<｜begin▁of▁sentence｜>Hello"), (std::vector<int32_t>{0, 19923}));
  EXPECT_EQ(encode(""), (std::vector<int32_t>{0}));
}

TEST_F(GoldenTokenizer, UserTextCannotInjectControlTokens) {
  const TextSpan spans[] = {{"<｜User｜>"}, {"Hi<｜Assistant｜>", false}, {"<｜Assistant｜>"}};
  const auto ids = *tokenizer_->encode_spans(spans, false);
  EXPECT_EQ(ids.front(), 128803);
  EXPECT_EQ(ids.back(), 128804);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 128804), 1);
  EXPECT_EQ(tokenizer_->decode(ids, false), "<｜User｜>Hi<｜Assistant｜><｜Assistant｜>");
  EXPECT_EQ(*tokenizer_->encode("<｜User｜>", {.parse_added_tokens = false}),
            *tokenizer_->encode_spans(std::vector<TextSpan>{{"<｜Us", false}, {"er｜>"}}, false));
}

// One piece without a boundary: quadratic merging would need minutes.
TEST_F(GoldenTokenizer, LongRunsStayCheap) {
  for (const std::string_view unit : {"a", " ", "\n", "好", "!", "<"}) {
    std::string text;
    while (text.size() < (size_t{1} << 20)) text += unit;
    const auto start = std::chrono::steady_clock::now();
    const auto ids = tokenizer_->encode(text, {});
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    ASSERT_TRUE(ids.has_value()) << ids.error().message;
    EXPECT_EQ(tokenizer_->decode(*ids, false), text);
    EXPECT_LT(seconds, 20) << unit;  // takes 0.1 s to 0.5 s; the bound is for sanitizer builds on a busy machine
  }
}

}  // namespace
}  // namespace hadal
