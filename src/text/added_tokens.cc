#include "text/added_tokens.h"

#include <algorithm>

namespace hadal {

AddedTokenMatcher::AddedTokenMatcher(std::span<const AddedToken> tokens) {
  for (const AddedToken& token : tokens) (token.normalized ? normalized_ : exact_).add(token.content, token.id);
}

void AddedTokenMatcher::find(std::string_view text, size_t begin, size_t end,
                             std::vector<AddedTokenMatch>& matches) const {
  if (normalized_.empty()) return exact_.find(text, begin, end, matches);
  std::vector<AddedTokenMatch> exact;
  exact_.find(text, begin, end, exact);
  for (const AddedTokenMatch& match : exact) {
    normalized_.find(text, begin, match.begin, matches);
    matches.push_back(match);
    begin = match.end;
  }
  normalized_.find(text, begin, end, matches);
}

void AddedTokenMatcher::Trie::add(std::string_view content, int32_t id) {
  int32_t node = 0;
  is_first_byte_[static_cast<uint8_t>(content[0])] = true;
  for (const char c : content) {
    const uint8_t byte = static_cast<uint8_t>(c);
    int32_t next = child(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(nodes_.size());
      auto& children = nodes_[node].children;
      children.insert(std::lower_bound(children.begin(), children.end(), std::pair(byte, 0)), {byte, next});
      nodes_.emplace_back();
    }
    node = next;
  }
  nodes_[node].id = id;
}

int32_t AddedTokenMatcher::Trie::child(int32_t node, uint8_t byte) const {
  const auto& children = nodes_[node].children;
  const auto found = std::lower_bound(children.begin(), children.end(), std::pair(byte, 0));
  return found != children.end() && found->first == byte ? found->second : -1;
}

void AddedTokenMatcher::Trie::find(std::string_view text, size_t begin, size_t end,
                                   std::vector<AddedTokenMatch>& matches) const {
  size_t pos = begin;
  while (pos < end) {
    if (!is_first_byte_[static_cast<uint8_t>(text[pos])]) {
      ++pos;
      continue;
    }
    AddedTokenMatch longest{pos, pos, -1};
    int32_t node = 0;
    for (size_t i = pos; i < end; ++i) {
      node = child(node, static_cast<uint8_t>(text[i]));
      if (node < 0) break;
      if (nodes_[node].id >= 0) longest = {pos, i + 1, nodes_[node].id};
    }
    if (longest.id >= 0) {
      matches.push_back(longest);
      pos = longest.end;
    } else {
      ++pos;
    }
  }
}

}  // namespace hadal
