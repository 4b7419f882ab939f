// A small vocabulary and the slow, plain ways to ask a grammar. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "support/test_files.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

namespace hadal {

// 256 single bytes, `words`, and "<s>", "</s>" and `special` as special tokens.
inline std::unique_ptr<Tokenizer> make_test_tokenizer(const std::vector<std::string>& words,
                                                      const std::vector<std::string>& special = {}) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto base64 = [&](std::string_view bytes) {
    std::string text;
    for (size_t i = 0; i < bytes.size(); i += 3) {
      uint32_t bits = 0;
      for (size_t k = 0; k < 3; ++k) bits = bits << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0);
      for (size_t k = 0; k < 4; ++k) text += i + k > bytes.size() ? '=' : kDigits[bits >> (18 - 6 * k) & 63];
    }
    return text;
  };
  std::string ranks;
  int id = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    ranks += fmt::format("{} {}\n", base64({&c, 1}), id++);
  }
  for (const std::string& word : words) ranks += fmt::format("{} {}\n", base64(word), id++);
  Json config{{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  std::vector<std::string> added = {"<s>", "</s>"};
  added.insert(added.end(), special.begin(), special.end());
  for (const std::string& content : added) {
    config["added_tokens_decoder"][std::to_string(id++)] = {{"content", content}, {"special", true}};
  }
  const TempDir dir;
  if (!write_file_atomically(dir.path() / "tiktoken.model", ranks) ||
      !write_file_atomically(dir.path() / "tokenizer_config.json", config.dump())) {
    throw std::runtime_error("cannot write the test's tokenizer");
  }
  auto loaded = Tokenizer::load(dir.path());
  if (!loaded) throw std::runtime_error(loaded.error().message);
  return std::move(*loaded);
}

// Pieces as vocabularies have them, across the borders of JSON's tokens.
inline const std::vector<std::string>& test_words() {
  static const std::vector<std::string> words = {"\"a",
                                                 "\"b",
                                                 "a\"",
                                                 "\":",
                                                 "\": ",
                                                 "\", \"",
                                                 "\"}",
                                                 "\"}}",
                                                 "\"]",
                                                 "\"],",
                                                 "},",
                                                 "}, {\"",
                                                 "]}",
                                                 "[[",
                                                 "{\"",
                                                 "[]",
                                                 "{}",
                                                 "tr",
                                                 "true",
                                                 "fals",
                                                 "e,",
                                                 "null",
                                                 "12",
                                                 "123",
                                                 "1,",
                                                 "2]",
                                                 "3}",
                                                 ".5",
                                                 "e+1",
                                                 "-1",
                                                 " ",
                                                 "  ",
                                                 "\n",
                                                 "\n  ",
                                                 "\\n",
                                                 "\\\"",
                                                 "\\u",
                                                 "00e9",
                                                 "\xC3\xA9",
                                                 "\xE4\xB8",
                                                 "\xF0\x9F\x98\x80",
                                                 "\x9F\x98",
                                                 "ab",
                                                 "abc",
                                                 "xyz",
                                                 "hello",
                                                 "the ",
                                                 " a",
                                                 "id",
                                                 "name",
                                                 "\"name\"",
                                                 "\"id\": ",
                                                 "value",
                                                 "foo",
                                                 "bar"};
  static const std::vector<std::string> result = [] {
    std::vector<std::string> list;
    for (const std::string& word : words) {
      if (word.size() > 1 && std::find(list.begin(), list.end(), word) == list.end()) list.push_back(word);
    }
    return list;
  }();
  return result;
}

struct TestVocabulary {
  std::unique_ptr<Tokenizer> tokenizer;
  std::shared_ptr<const GrammarVocabulary> vocabulary;
};
inline const TestVocabulary& small_vocabulary() {
  static const TestVocabulary small = [] {
    TestVocabulary result;
    result.tokenizer = make_test_tokenizer(test_words());
    result.vocabulary = GrammarVocabulary::make(*result.tokenizer);
    return result;
  }();
  return small;
}

inline bool accepts_text(const Grammar& grammar, std::string_view text) {
  GrammarMatcher matcher(grammar, small_vocabulary().vocabulary);
  return matcher.accept_bytes(text) && matcher.can_end();
}

inline std::vector<uint64_t> mask_of(GrammarMatcher& matcher, const TestVocabulary& vocabulary) {
  std::vector<uint64_t> mask((static_cast<size_t>(vocabulary.vocabulary->size()) + 63) / 64);
  matcher.fill_mask(mask);
  return mask;
}

inline std::vector<int32_t> ids_of(const std::vector<uint64_t>& mask) {
  std::vector<int32_t> ids;
  for (size_t id = 0; id < mask.size() * 64; ++id) {
    if (mask[id / 64] >> (id % 64) & 1) ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

// Each ordinary token, tried on a copy.
inline std::vector<int32_t> ids_by_trying(const GrammarMatcher& matcher, const TestVocabulary& vocabulary) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < vocabulary.tokenizer->vocab_size(); ++id) {
    const std::string_view bytes = vocabulary.tokenizer->token_bytes(id);
    if (bytes.empty() || vocabulary.tokenizer->is_special(id)) continue;
    GrammarMatcher copy(matcher);
    if (copy.accept_bytes(bytes)) ids.push_back(id);
  }
  return ids;
}

// A text that the grammar accepts, token by token from the masks; ends sooner the longer it is. Checks on the way that
// there is always a way on. Empty after too many tokens.
inline std::string random_walk(const Grammar& grammar, const TestVocabulary& vocabulary, std::mt19937& random,
                               size_t max_tokens = 4000) {
  GrammarMatcher matcher(grammar, vocabulary.vocabulary);
  std::string text;
  for (size_t i = 0; i < max_tokens; ++i) {
    if (matcher.can_end() && (matcher.must_end() || random() % 4 == 0)) return text;
    const std::vector<int32_t> ids = ids_of(mask_of(matcher, vocabulary));
    if (ids.empty()) {
      ADD_FAILURE() << "no way on after: " << text;
      return text;
    }
    int32_t id = ids[random() % ids.size()];
    // What closes strings, objects and arrays comes more often, so that texts end.
    for (const int32_t closing : ids) {
      const std::string_view bytes = vocabulary.tokenizer->token_bytes(closing);
      if (random() % (i < 100 ? 8 : 2) == 0 && (bytes == "\"" || bytes == "}" || bytes == "]")) id = closing;
    }
    if (!matcher.accept(id)) ADD_FAILURE() << "token " << id << " is in the mask but not accepted after: " << text;
    text += vocabulary.tokenizer->token_bytes(id);
  }
  return "";
}

}  // namespace hadal
