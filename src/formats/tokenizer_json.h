// `tokenizer.json` of the Hugging Face tokenizers library, as far as byte-level BPE models need it: bytes -> structs.
// Whatever changes ids and is not represented here is refused by name. Used by text/tokenizer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hadal {

struct AddedTokenJson {
  int32_t id = 0;
  std::string content;      // UTF-8, never empty
  bool special = false;     // dropped by skip_special_tokens
  bool normalized = false;  // matched after the tokens with normalized = false
  // Matching conditions; parse_tokenizer_json accepts only false for all three.
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
};

struct BpeMergeJson {
  int32_t left = 0, right = 0;  // token ids
  int32_t merged = 0;           // id of the concatenated spelling
};

struct TokenizerJson {
  // Index = id. Spelled in GPT-2's byte-to-unicode characters ("Ġthe"). "" where the id is only an added token.
  std::vector<std::string> vocab;
  std::vector<BpeMergeJson> merges;  // index = rank, lowest merges first
  std::vector<AddedTokenJson> added_tokens;
  // Regexes of the Split stages in order, behavior Isolated: matches and the gaps between them both become pieces.
  std::vector<std::string> split_patterns;
  bool ignore_merges = false;  // a piece that is a vocabulary entry is taken whole
};

// Accepts merges as "left right" strings or ["left", "right"] pairs. Ids of vocabulary and added tokens together must
// cover 0..n-1. Errors: kCorrupt (contradictions, with the offending name), kUnsupported (other model types,
// normalizers, pre-tokenizers, ... by name). Cost: 0.2 s for DeepSeek's 7.8 MB.
Expected<TokenizerJson> parse_tokenizer_json(std::string_view text);

}  // namespace hadal
