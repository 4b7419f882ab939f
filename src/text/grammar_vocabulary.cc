#include "text/grammar_vocabulary.h"

#include <algorithm>

#include "text/grammar_plain_text.h"

namespace hadal {
namespace {

using Data = GrammarVocabulary::Data;

// Longer tokens do not exist in practice; they are left out, which keeps the depth within its type.
constexpr size_t kMaxTokenBytes = 4096;

void collect_tokens(const Tokenizer& tokenizer, Data& data) {
  data.size = tokenizer.vocab_size();
  for (int32_t id = 0; id < data.size; ++id) {
    const std::string_view bytes = tokenizer.token_bytes(id);
    if (bytes.empty() || bytes.size() > kMaxTokenBytes) continue;
    if (tokenizer.is_special(id)) {
      data.special_tokens.push_back({id, std::string(bytes)});
      continue;
    }
    data.tokens.push_back({id, static_cast<uint32_t>(data.text.size()), static_cast<uint32_t>(bytes.size())});
    data.text += bytes;
    data.max_token_bytes = std::max(data.max_token_bytes, bytes.size());
  }
  std::sort(data.tokens.begin(), data.tokens.end(), [&](const Data::Token& a, const Data::Token& b) {
    const int order = data.bytes(a).compare(data.bytes(b));
    return order != 0 ? order < 0 : a.id < b.id;
  });
  data.token_of_id.assign(data.size, Data::kNoToken);
  for (uint32_t i = 0; i < data.tokens.size(); ++i) data.token_of_id[data.tokens[i].id] = i;
}

Data::Trie build_trie(const Data& data, std::vector<uint32_t> tokens) {
  Data::Trie trie;
  std::vector<uint32_t> path;  // node of each prefix of the last token
  std::string_view last;
  for (uint32_t i = 0; i < tokens.size(); ++i) {
    const std::string_view bytes = data.bytes(data.tokens[tokens[i]]);
    const size_t common =
        static_cast<size_t>(std::mismatch(last.begin(), last.end(), bytes.begin(), bytes.end()).first - last.begin());
    while (path.size() > common) {
      trie.nodes[path.back()].end = static_cast<uint32_t>(trie.nodes.size());
      path.pop_back();
    }
    for (size_t depth = common; depth < bytes.size(); ++depth) {
      path.push_back(static_cast<uint32_t>(trie.nodes.size()));
      trie.nodes.push_back(
          {.first_token = i, .depth = static_cast<uint16_t>(depth + 1), .byte = static_cast<uint8_t>(bytes[depth])});
    }
    last = bytes;
  }
  for (const uint32_t node : path) trie.nodes[node].end = static_cast<uint32_t>(trie.nodes.size());
  trie.nodes.push_back({.first_token = static_cast<uint32_t>(tokens.size())});
  trie.tokens = std::move(tokens);
  return trie;
}

void build_tries(Data& data) {
  std::vector<uint32_t> all, not_plain;
  data.plain_masks.assign(Data::kMaxPlainLength + 1, std::vector<uint64_t>(data.mask_words()));
  for (uint32_t i = 0; i < data.tokens.size(); ++i) {
    all.push_back(i);
    const size_t length = plain_text_length(data.bytes(data.tokens[i]));
    if (length == 0 || length > Data::kMaxPlainLength) {
      not_plain.push_back(i);
      continue;
    }
    data.plain_masks[length][data.tokens[i].id / 64] |= uint64_t{1} << (data.tokens[i].id % 64);
  }
  for (size_t length = 1; length <= Data::kMaxPlainLength; ++length) {
    for (size_t word = 0; word < data.mask_words(); ++word) {
      data.plain_masks[length][word] |= data.plain_masks[length - 1][word];
    }
  }
  data.all = build_trie(data, std::move(all));
  data.not_plain = build_trie(data, std::move(not_plain));
}

}  // namespace

std::shared_ptr<const GrammarVocabulary> GrammarVocabulary::make(const Tokenizer& tokenizer) {
  auto data = std::make_shared<Data>();
  collect_tokens(tokenizer, *data);
  build_tries(*data);
  auto vocabulary = std::make_shared<GrammarVocabulary>();
  vocabulary->data_ = std::move(data);
  return vocabulary;
}

int32_t GrammarVocabulary::size() const { return data_->size; }

}  // namespace hadal
