// The parts of a Tokenizer. Included by tokenizer.cc and tokenizer_load.cc only.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "formats/tokenizer_config.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace hadal {

struct Tokenizer::Impl {
  enum TokenFlags : uint8_t { kNotAdded = 0, kAdded = 1, kSpecial = 2 };

  std::unique_ptr<Vocabulary> vocabulary;
  std::unique_ptr<Bpe> bpe;  // refers to *vocabulary
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  std::unique_ptr<AddedTokenMatcher> added_matcher;
  std::vector<uint8_t> flags;  // TokenFlags, index = id
  std::unordered_map<std::string, int32_t> added_ids;
  // tiktoken: long text is cut before anything else looks at it, as the model's Python wrapper does.
  bool cut_like_kimi = false;

  std::optional<int32_t> bos_id, eos_id;
  TokenizerConfig config;

  // Ordinary text, without added tokens.
  Status encode_ordinary(std::string_view text, std::vector<int32_t>& ids) const;
  struct Range {
    size_t begin = 0, end = 0;
  };
  // `allowed`: ascending ranges of the text in which added tokens are recognised.
  Expected<std::vector<int32_t>> encode_text(std::string_view text, std::span<const Range> allowed,
                                             bool add_special_tokens) const;
  Status encode_chunk(std::string_view text, Range chunk, std::span<const Range> allowed,
                      std::vector<int32_t>& ids) const;

  // Loads into *this.
  Status load(const std::filesystem::path& model_dir);
  Status build_from_json(TokenizerJson json);
  Status build_from_tiktoken(std::vector<std::string> tokens);
  Status build(const std::vector<std::string>& tokens, const std::vector<bool>& findable,
               const std::vector<AddedToken>& added, const std::vector<std::string>& pcre2_patterns);
  Status resolve_config_tokens();
};

// Where Kimi's wrapper cuts: ends of chunks, the last one text.size(). Every 400,000 characters, and inside those after
// 25,000 blanks or 25,000 non-blanks in a row.
std::vector<size_t> kimi_chunk_ends(std::string_view text);

}  // namespace hadal
