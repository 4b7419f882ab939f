// The run time of a grammar: what the text so far can be is a set of threads, each a node of the automaton and a stack
// of nodes to return to. Included by grammar_*.cc only.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "text/grammar_data.h"

namespace hadal {

struct GrammarThread {
  uint32_t node = 0;
  uint32_t stack = 0;  // of a GrammarStacks
  bool operator==(const GrammarThread&) const = default;
  auto operator<=>(const GrammarThread&) const = default;
};
// Ascending, each once. Empty: the text cannot be continued. Only nodes with edges, and kEndNode.
using GrammarThreads = std::vector<GrammarThread>;

// Stacks that share what they have in common: equal stacks have equal ids. Single-owner.
class GrammarStacks {
 public:
  static constexpr uint32_t kBottom = 0;

  uint32_t push(uint32_t node, uint32_t below) {
    const auto [found, is_new] = ids_.try_emplace(uint64_t{node} << 32 | below, static_cast<uint32_t>(entries_.size()));
    if (is_new) entries_.push_back({node, below});
    return found->second;
  }
  // Requires stack != kBottom.
  uint32_t top(uint32_t stack) const { return entries_[stack].node; }
  uint32_t below(uint32_t stack) const { return entries_[stack].below; }
  size_t size() const { return entries_.size(); }
  void clear() {
    entries_.resize(1);
    ids_.clear();
  }

 private:
  struct Entry {
    uint32_t node = 0, below = 0;
  };
  std::vector<Entry> entries_ = std::vector<Entry>(1);
  std::unordered_map<uint64_t, uint32_t> ids_;
};

// Moves thread sets along. Single-owner; keeps scratch memory.
class GrammarStepper {
 public:
  // More threads at once mean a grammar so ambiguous that following it is not worth it: such a step counts as not
  // allowed.
  static constexpr size_t kMaxThreads = 1024;

  explicit GrammarStepper(const GrammarData& data) : data_(data) {}

  // Everything that a thread at `node` can be before the next byte: inside called rules, or returned from its own.
  // Into `result`; a return below the bottom of `stack` gives {kEndNode, kBottom}. False when there are too many.
  bool enter(uint32_t node, uint32_t stack, GrammarStacks& stacks, GrammarThreads& result);
  // The threads after one more byte. `from` and `result` must differ.
  bool step(std::span<const GrammarThread> from, uint8_t byte, GrammarStacks& stacks, GrammarThreads& result);

 private:
  void begin();
  void add(uint32_t node, uint32_t stack);
  bool finish(GrammarStacks& stacks, GrammarThreads& result);

  const GrammarData& data_;
  // All threads met in this step, first in first out, and a hash index of them for when there are many.
  std::vector<GrammarThread> met_;
  std::vector<uint32_t> slots_ = std::vector<uint32_t>(kNumSlots, 0);  // 1 + index into met_; 0: free
  bool is_indexed_ = false;
  bool is_full_ = false;

  static constexpr size_t kNumSlots = 4096;
  static constexpr size_t kMaxMet = 2048;
  static constexpr size_t kMaxUnindexed = 16;
};

}  // namespace hadal
