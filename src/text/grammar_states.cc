#include "text/grammar_states.h"

namespace hadal {

uint32_t GrammarStates::intern(const GrammarThreads& threads) {
  if (threads.empty()) return kDead;
  uint64_t hash = 0x9E3779B97F4A7C15u;
  for (const GrammarThread& thread : threads) {
    hash = (hash ^ (uint64_t{thread.node} << 32 | thread.stack)) * 0xFF51AFD7ED558CCDu;
    hash ^= hash >> 32;
  }
  auto [begin, end] = by_hash_.equal_range(hash);
  for (; begin != end; ++begin) {
    if (threads_[begin->second] == threads) return begin->second;
  }
  const uint32_t state = static_cast<uint32_t>(threads_.size());
  by_hash_.emplace(hash, state);
  threads_.push_back(threads);
  moves_.resize(moves_.size() + 256, kUnknown);
  // kEndNode is 0, so that it comes first.
  returns_.push_back(threads[0].node == GrammarData::kEndNode);
  return state;
}

uint32_t GrammarStates::entered(uint32_t node) {
  GrammarThreads threads;
  stepper_.enter(node, GrammarStacks::kBottom, stacks_, threads);
  work_ += 1 + threads.size();
  return intern(threads);
}

uint32_t GrammarStates::step_slowly(uint32_t state, uint8_t byte) {
  GrammarThreads threads;
  stepper_.step(threads_[state], byte, stacks_, threads);
  work_ += 1 + threads_[state].size() + threads.size();
  const uint32_t next = intern(threads);
  moves_[size_t{state} * 256 + byte] = next;
  return next;
}

void GrammarStates::forget_states() {
  threads_.assign(1, {});
  moves_.assign(256, kDead);
  returns_.assign(1, false);
  by_hash_.clear();
}

void GrammarStates::keep_only(std::vector<uint32_t>& path) {
  std::vector<GrammarThreads> kept;
  for (const uint32_t state : path) kept.push_back(threads_[state]);
  forget_states();
  for (size_t i = 0; i < path.size(); ++i) path[i] = intern(kept[i]);
}

void GrammarStates::clear() {
  forget_states();
  stacks_.clear();
}

}  // namespace hadal
