// Nodes that take any ordinary character: inside strings and free text most tokens can be decided at once, without
// looking at their bytes. Included by grammar_*.cc only.
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>

#include "text/grammar_data.h"

namespace hadal {

// Ordinary: any but control characters, '"', '\' and '<', where JSON strings and the text before tool calls branch.
// The number of characters of a text that has only those, 0 for others and for what is no whole UTF-8.
size_t plain_text_length(std::string_view text);

// Single-owner; remembers what it found.
class GrammarPlainRuns {
 public:
  explicit GrammarPlainRuns(const GrammarData& data) : data_(data) {}

  struct Run {
    // Any text of up to so many ordinary characters may follow, within the node's rule; at most `limit`.
    size_t length = 0;
    // None of more may, when length < limit.
    bool is_exact = false;
  };
  Run run_of(uint32_t node, size_t limit);

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  // The node that every ordinary character leads to, or kNone.
  uint32_t next_of(uint32_t node);
  uint32_t find_next(uint32_t node) const;
  bool leads_to(uint32_t node, int low, int high, int num_continuations, uint32_t& target) const;
  bool is_only_itself(uint32_t node) const;
  bool takes_none(uint32_t node) const;

  const GrammarData& data_;
  std::unordered_map<uint32_t, uint32_t> next_;
};

}  // namespace hadal
