// The vocabulary as tries in depth-first order. Included by grammar_*.cc only.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar.h"

namespace hadal {

struct GrammarVocabulary::Data {
  struct Token {
    int32_t id = 0;
    uint32_t offset = 0, num_bytes = 0;  // of `text`
  };
  // A prefix of tokens: the path to it spells the prefix. Parents come before children, siblings ascend by byte, so
  // that the nodes [i, end) are those below and including i.
  struct TrieNode {
    uint32_t end = 0;          // behind the last node of this subtree
    uint32_t first_token = 0;  // into the trie's `tokens`: those that end here; up to the next node's first_token
    uint16_t depth = 0;        // bytes to here, at least 1
    uint8_t byte = 0;          // the last of them
  };
  struct Trie {
    std::vector<TrieNode> nodes;   // one more than there are
    std::vector<uint32_t> tokens;  // indices into Data::tokens, ascending
    uint32_t num_nodes() const { return static_cast<uint32_t>(nodes.size()) - 1; }
  };

  int32_t size = 0;                   // ids are below
  std::vector<Token> tokens;          // ascending by bytes, then by id
  std::vector<uint32_t> token_of_id;  // index into `tokens`; kNoToken: special, or without bytes
  std::string text;
  size_t max_token_bytes = 0;
  Trie all, not_plain;
  // plain_masks[n]: the tokens of 1 to n ordinary characters (grammar_plain_text.h); up to kMaxPlainLength.
  std::vector<std::vector<uint64_t>> plain_masks;
  // Allowed only where a grammar names their text.
  struct SpecialToken {
    int32_t id = 0;
    std::string bytes;
  };
  std::vector<SpecialToken> special_tokens;

  static constexpr uint32_t kNoToken = UINT32_MAX;
  // Tokens of more ordinary characters count as others.
  static constexpr size_t kMaxPlainLength = 64;

  std::string_view bytes(const Token& token) const {
    return std::string_view(text).substr(token.offset, token.num_bytes);
  }
  size_t mask_words() const { return (static_cast<size_t>(size) + 63) / 64; }
};

}  // namespace hadal
