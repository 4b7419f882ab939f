#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

#include "base/file.h"
#include "base/utf8.h"
#include "support/test_files.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/detokenizer.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer_impl.h"

namespace hadal {
namespace {

using testing::HasSubstr;

std::vector<std::string> all_bytes() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  return tokens;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t j = 0; j < 3; ++j) bits = bits << 8 | (i + j < bytes.size() ? static_cast<uint8_t>(bytes[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j) out += i + j > bytes.size() ? '=' : kDigits[bits >> (18 - 6 * j) & 63];
  }
  return out;
}

// A model folder like Kimi's: 256 bytes and a few words.
class KimiFolder : public testing::Test {
 protected:
  void SetUp() override {
    tokens_ = all_bytes();
    for (const char* word : {"he", "ll", "hell", "hello", " hello", "lo", "o ", "你", "你好"}) tokens_.push_back(word);
    std::string ranks;
    for (size_t i = 0; i < tokens_.size(); ++i) ranks += base64(tokens_[i]) + " " + std::to_string(i) + "\n";
    write("tiktoken.model", ranks);
    first_slot_ = static_cast<int32_t>(tokens_.size());
    const auto slot = [&](int offset) { return std::to_string(first_slot_ + offset); };
    config_ = {{"bos_token", "[BOS]"},
               {"eos_token", "[EOS]"},
               {"added_tokens_decoder",
                {{slot(0), {{"content", "[BOS]"}, {"special", true}}},
                 {slot(1), {{"content", "[EOS]"}, {"special", true}}},
                 {slot(11), {{"content", "<|tool_calls_section_begin|>"}, {"special", false}}}}}};
    write("tokenizer_config.json", config_.dump());
  }

  void write(const std::string& name, std::string_view text) {
    ASSERT_TRUE(write_file_atomically(dir_.path() / name, text).has_value());
  }
  Expected<std::unique_ptr<Tokenizer>> load() { return Tokenizer::load(dir_.path()); }

  TempDir dir_;
  std::vector<std::string> tokens_;
  int32_t first_slot_ = 0;
  Json config_;
};

TEST_F(KimiFolder, EncodesRanksAndSlots) {
  const auto loaded = load();
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
  const Tokenizer& tokenizer = **loaded;
  EXPECT_EQ(tokenizer.vocab_size(), first_slot_ + 256);
  EXPECT_EQ(tokenizer.bos_token_id(), first_slot_);
  EXPECT_FALSE(tokenizer.add_bos());
  const auto id = [&](std::string_view token) {
    return static_cast<int32_t>(std::find(tokens_.begin(), tokens_.end(), token) - tokens_.begin());
  };
  EXPECT_EQ(*tokenizer.encode("hello hello", {}), (std::vector<int32_t>{id("hello"), id(" hello")}));
  EXPECT_EQ(*tokenizer.encode("你好[EOS]", {.add_special_tokens = true}),
            (std::vector<int32_t>{id("你好"), first_slot_ + 1}));
  // "hellp": he + ll merge first (ranks 256, 257), then "hell", then nothing.
  EXPECT_EQ(*tokenizer.encode("hellp", {}), (std::vector<int32_t>{id("hell"), 'p'}));
  const std::string reserved = "<|reserved_token_" + std::to_string(first_slot_ + 5) + "|>";
  EXPECT_EQ(*tokenizer.encode(reserved, {}), (std::vector<int32_t>{first_slot_ + 5}));
  EXPECT_EQ(tokenizer.token_id("<|tool_calls_section_begin|>"), first_slot_ + 11);
  const std::vector<int32_t> ids = {first_slot_, 'x', first_slot_ + 11, first_slot_ + 1};
  EXPECT_EQ(tokenizer.decode(ids, true), "x<|tool_calls_section_begin|>");
  EXPECT_EQ(tokenizer.decode(ids, false), "[BOS]x<|tool_calls_section_begin|>[EOS]");
}

TEST_F(KimiFolder, RefusesIdsBeyondTheSlots) {
  config_["added_tokens_decoder"][std::to_string(first_slot_ + 256)] = {{"content", "<|beyond|>"}, {"special", true}};
  write("tokenizer_config.json", config_.dump());
  const auto loaded = load();
  ASSERT_FALSE(loaded.has_value());
  EXPECT_THAT(loaded.error().message, HasSubstr("<|beyond|>"));
}

TEST_F(KimiFolder, RefusesBrokenRankFiles) {
  const std::string a = base64("a");
  const std::string broken[] = {"",
                                a + " 0\n",
                                a + "\n",
                                "!!!! 0\n",
                                a + " 0\n" + a + " 0\n",
                                a + " 99999999\n",
                                a + " x\n",
                                base64("ab").substr(1) + " 0\n"};
  for (const std::string& text : broken) {
    write("tiktoken.model", text);
    EXPECT_FALSE(load().has_value()) << text;
  }
}

TEST_F(KimiFolder, AChatTemplateFileWins) {
  config_["chat_template"] = "from config";
  write("tokenizer_config.json", config_.dump());
  EXPECT_EQ((*load())->chat_template(), "from config");
  write("chat_template.jinja", "from file");
  EXPECT_EQ((*load())->chat_template(), "from file");
  config_["chat_template"] = {{{"name", "default"}, {"template", "d"}}, {{"name", "tool_use"}, {"template", "t"}}};
  write("tokenizer_config.json", config_.dump());
  EXPECT_EQ((*load())->chat_template(), "from file");
  EXPECT_EQ((*load())->chat_template("tool_use"), "t");
}

TEST_F(KimiFolder, ThreadsAgree) {
  const auto tokenizer = std::move(*load());
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "hello hellp 你好 " + std::to_string(i);
  const auto expected = *tokenizer->encode(text, {});
  std::vector<std::thread> threads;
  std::atomic<int> num_equal = 0;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { num_equal += *tokenizer->encode(text, {}) == expected; });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_equal, 4);
}

TEST_F(KimiFolder, RefusesInvalidText) {
  const auto tokenizer = std::move(*load());
  EXPECT_FALSE(tokenizer->encode("a\xff", {}).has_value());
  EXPECT_FALSE(tokenizer->encode("\xc3", {}).has_value());
}

// Every byte sequence, valid or not: the stream equals the whole, and never shows half a character.
TEST_F(KimiFolder, StreamingDetokenizerEqualsDecode) {
  const auto tokenizer = std::move(*load());
  std::mt19937 random(3);
  const std::string_view alphabet = "a\xc3\xa9\xe4\xbd\xa0\xf0\x9f\x99\x82\xff\x80";
  for (int round = 0; round < 2000; ++round) {
    std::vector<int32_t> ids(random() % 12);
    for (int32_t& id : ids) {
      id = random() % 10 == 0 ? first_slot_ : static_cast<uint8_t>(alphabet[random() % alphabet.size()]);
    }
    const bool skips = random() % 2;
    StreamingDetokenizer stream(*tokenizer, skips);
    std::string streamed;
    for (const int32_t id : ids) {
      const std::string piece = stream.push(id);
      EXPECT_EQ(find_invalid_utf8(piece), std::string::npos);
      streamed += piece;
    }
    streamed += stream.flush();
    EXPECT_EQ(streamed, tokenizer->decode(ids, skips));
  }
  // A character whose first byte ended the prompt.
  StreamingDetokenizer resumed(*tokenizer, false, std::vector<int32_t>{'x', 0xc3});
  EXPECT_EQ(resumed.push(0xa9), "é");
}

// Made with the Python module regex (its V1 mode has class intersections) from the pattern in Kimi's tokenizer class.
TEST(KimiSplit, CutsLikeTheReference) {
  const std::vector<std::vector<std::string>> cases = {
      {"Camel", "Case", " HTTPServer"},
      {"I'm", " can't", " WE'LL", " they'd", " you've", " it'S"},
      {"中文", "English", "混排", "test"},
      {"々〇⺀日本語", "カタカナ"},
      {"Hello", " ", " world", "   "},
      {"123", "45", " ", "3", ".", "14"},
      {"foo", "(bar", ");\n\n", " ", " x", " =", " ", "1", "\r\n"},
      {"naïve", " ÀÉ", " Ǆx"},
      {"한국어", " 텍스트"},
      {"a", "\u00a0b", "\u3000c", "\u180ed", "\u200be"},
      {"日本", "、", "語"},
      {"ʰx", " ᾈb"},
      {"e\u0301", " \u0301x"},
      {"!?…\n", "—"},
      {"\t", "\tif", " x", ":\n"},
      {"’s", " it", "’s"},
      {"ABCdef", "GHI"},
      {"ⅣⅤ½"},
      {"don'T", "'S"},
  };
  auto regex = SplitRegex::compile(kimi_split_regex());
  ASSERT_TRUE(regex.has_value()) << regex.error().message;
  const PreTokenizer pre_tokenizer({std::move(*regex)});
  for (const auto& expected : cases) {
    std::string text;
    for (const std::string& piece : expected) text += piece;
    std::vector<std::string_view> pieces;
    ASSERT_TRUE(pre_tokenizer.split(text, pieces).has_value());
    EXPECT_EQ(std::vector<std::string>(pieces.begin(), pieces.end()), expected);
  }
}

TEST(KimiSplit, LongRunsNeitherFailNorCrawl) {
  const PreTokenizer pre_tokenizer({*SplitRegex::compile(kimi_split_regex())});
  for (const std::string_view unit : {"a", "A", "好", " ", "\n", "!", "e\u0301"}) {
    std::string text;
    while (text.size() < (size_t{1} << 20)) text += unit;
    std::vector<std::string_view> pieces;
    const Status status = pre_tokenizer.split(text, pieces);
    ASSERT_TRUE(status.has_value()) << unit << status.error().message;
    EXPECT_LE(pieces.size(), 2u) << unit;
  }
}

TEST(KimiChunks, CutLongRunsAndLongText) {
  EXPECT_THAT(kimi_chunk_ends("ab c"), testing::ElementsAre(4));
  EXPECT_THAT(kimi_chunk_ends(std::string(25'000, 'a')), testing::ElementsAre(25'000));
  EXPECT_THAT(kimi_chunk_ends(std::string(25'001, 'a')), testing::ElementsAre(25'000, 25'001));
  EXPECT_THAT(kimi_chunk_ends(std::string(10, 'a') + std::string(25'001, ' ')), testing::ElementsAre(25'010, 25'011));
  std::string text;
  while (text.size() < 900'000) text += "word ";
  EXPECT_THAT(kimi_chunk_ends(text), testing::ElementsAre(400'000, 800'000, 900'000));
}

TEST(SplitRegex, RefusesWhatTheDialectsReadDifferently) {
  for (const char* pattern : {"[a&&b]", "[a[b]]", "\\w+", "\\h", "a.b", "^a", "\\p{Emoji}", "(?<name>a)", "[\\S]",
                              "a{,3}", "a{2}+", "\\bx", "[]a]", "[abc", "\\"}) {
    const auto translated = translate_split_regex(pattern);
    ASSERT_FALSE(translated.has_value()) << pattern;
    EXPECT_EQ(translated.error().code, ErrorCode::kUnsupported);
  }
  EXPECT_FALSE(SplitRegex::compile("a*").has_value()) << "matches the empty string";
  EXPECT_FALSE(SplitRegex::compile("(a").has_value());
}

TEST(ByteLevel, SpellingIsAOneToOneMap) {
  const std::string bytes = [] {
    std::string all;
    for (const std::string& byte : all_bytes()) all += byte;
    return all;
  }();
  EXPECT_EQ(unspell_bytes(spell_bytes(bytes)), bytes);
  EXPECT_EQ(spell_bytes(" \n\xad"), "ĠĊŃ");
  EXPECT_FALSE(unspell_bytes("<｜").has_value());
}

TEST(AddedTokens, LeftmostThenLongestAndExactFirst) {
  const std::vector<AddedToken> tokens = {{.id = 1, .content = "<a>"},
                                          {.id = 2, .content = "<a>b"},
                                          {.id = 3, .content = "b<a", .normalized = true},
                                          {.id = 4, .content = "cc"}};
  const AddedTokenMatcher matcher(tokens);
  const auto find = [&](std::string_view text) {
    std::vector<AddedTokenMatch> matches;
    matcher.find(text, 0, text.size(), matches);
    std::vector<std::pair<size_t, int32_t>> found;
    for (const AddedTokenMatch& match : matches) found.emplace_back(match.begin, match.id);
    return found;
  };
  using Found = std::vector<std::pair<size_t, int32_t>>;
  EXPECT_EQ(find("x<a>b<a"), (Found{{1, 2}}));
  EXPECT_EQ(find("b<a>"), (Found{{1, 1}}));  // the normalized token starts earlier, but exact ones are taken first
  EXPECT_EQ(find("b<ab<a"), (Found{{0, 3}, {3, 3}}));
  EXPECT_EQ(find("ccc"), (Found{{0, 4}}));
}

// ---- merging against its definition

std::vector<int32_t> merge_naively(const std::string& piece, const std::vector<std::string>& tokens,
                                   const std::map<std::pair<int32_t, int32_t>, std::pair<size_t, int32_t>>& ranks) {
  std::vector<int32_t> ids;
  for (const char c : piece) {
    ids.push_back(static_cast<int32_t>(std::find(tokens.begin(), tokens.end(), std::string(1, c)) - tokens.begin()));
  }
  while (true) {
    size_t best = SIZE_MAX, best_at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found != ranks.end() && found->second.first < best) best = found->second.first, best_at = i;
    }
    if (best == SIZE_MAX) return ids;
    ids[best_at] = ranks.at({ids[best_at], ids[best_at + 1]}).second;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
  }
}

TEST(Bpe, MergesLikeItsDefinition) {
  std::mt19937 random(11);
  for (int round = 0; round < 60; ++round) {
    // Random tokens over {a, b}, each the concatenation of two earlier ones.
    std::vector<std::string> tokens = all_bytes();
    std::vector<BpeMerge> merges;
    std::map<std::pair<int32_t, int32_t>, std::pair<size_t, int32_t>> list_ranks;
    std::vector<int32_t> usable = {'a', 'b'};
    for (int i = 0; i < 12; ++i) {
      const int32_t left = usable[random() % usable.size()], right = usable[random() % usable.size()];
      const std::string merged = tokens[left] + tokens[right];
      if (merged.size() > 6 || std::find(tokens.begin(), tokens.end(), merged) != tokens.end()) continue;
      const int32_t id = static_cast<int32_t>(tokens.size());
      tokens.push_back(merged);
      usable.push_back(id);
      list_ranks[{left, right}] = {merges.size(), id};
      merges.push_back({left, right, id});
    }
    decltype(list_ranks) byte_ranks;  // tiktoken: any pair whose bytes are a token, ranked by id
    for (const int32_t left : usable) {
      for (const int32_t right : usable) {
        const auto found = std::find(tokens.begin() + 256, tokens.end(), tokens[left] + tokens[right]);
        if (found == tokens.end()) continue;
        const size_t id = static_cast<size_t>(found - tokens.begin());
        byte_ranks[{left, right}] = {id, static_cast<int32_t>(id)};
      }
    }
    const Vocabulary vocabulary(tokens, std::vector<bool>(tokens.size(), true));
    const Bpe by_list(vocabulary, merges, false);
    const Bpe by_rank(vocabulary);
    for (int i = 0; i < 50; ++i) {
      std::string piece(1 + random() % 40, 'a');
      for (char& c : piece) c = static_cast<char>('a' + random() % 2);
      std::vector<int32_t> ids;
      by_list.encode(piece, ids);
      EXPECT_EQ(ids, merge_naively(piece, tokens, list_ranks)) << piece;
      ids.clear();
      by_rank.encode(piece, ids);
      const int32_t whole = vocabulary.find(piece);
      EXPECT_EQ(ids, whole >= 0 ? std::vector<int32_t>{whole} : merge_naively(piece, tokens, byte_ranks)) << piece;
    }
  }
}

}  // namespace
}  // namespace hadal
