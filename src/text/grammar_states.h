// Sets of threads as numbered states with remembered moves: what a walk over the vocabulary runs on. Included by
// grammar_*.cc only.
#pragma once

#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "text/grammar_threads.h"

namespace hadal {

// Stacks here begin at an unknown caller: a return below their bottom is the thread {kEndNode, kBottom}. Single-owner.
class GrammarStates {
 public:
  static constexpr uint32_t kDead = 0;

  explicit GrammarStates(const GrammarData& data) : stepper_(data) { clear(); }

  // The thread at `node` as it is: its calls and returns are others' business.
  uint32_t at(uint32_t node) { return intern({{node, GrammarStacks::kBottom}}); }
  // Everything that a thread at `node` can be.
  uint32_t entered(uint32_t node);
  uint32_t step(uint32_t state, uint8_t byte) {
    const uint32_t known = moves_[size_t{state} * 256 + byte];
    return known != kUnknown ? known : step_slowly(state, byte);
  }
  // The unknown caller goes on here.
  bool returns(uint32_t state) const { return returns_[state]; }

  size_t size() const { return threads_.size(); }
  // States and stacks computed so far and not remembered from before: a measure of time spent.
  size_t work() const { return work_; }
  // Forgets all states but those of `path`, which it renumbers.
  void keep_only(std::vector<uint32_t>& path);
  void clear();
  size_t num_stacks() const { return stacks_.size(); }

 private:
  static constexpr uint32_t kUnknown = UINT32_MAX;

  uint32_t intern(const GrammarThreads& threads);
  uint32_t step_slowly(uint32_t state, uint8_t byte);
  void forget_states();

  GrammarStepper stepper_;
  GrammarStacks stacks_;
  std::deque<GrammarThreads> threads_;  // by state
  std::vector<uint32_t> moves_;         // [num_states, 256]
  std::vector<bool> returns_;
  std::unordered_multimap<uint64_t, uint32_t> by_hash_;
  size_t work_ = 0;
};

}  // namespace hadal
