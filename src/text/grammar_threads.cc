#include "text/grammar_threads.h"

#include <algorithm>

namespace hadal {
namespace {

size_t hash_of(const GrammarThread& thread) {
  const uint64_t key = uint64_t{thread.node} << 32 | thread.stack;
  return static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> 40);
}

}  // namespace

void GrammarStepper::begin() {
  if (is_indexed_) std::fill(slots_.begin(), slots_.end(), 0);
  met_.clear();
  is_indexed_ = is_full_ = false;
}

void GrammarStepper::add(uint32_t node, uint32_t stack) {
  const GrammarThread thread{node, stack};
  if (!is_indexed_) {
    if (std::find(met_.begin(), met_.end(), thread) != met_.end()) return;
    if (met_.size() < kMaxUnindexed) return met_.push_back(thread);
    is_indexed_ = true;
    for (uint32_t i = 0; i < met_.size(); ++i) {
      size_t slot = hash_of(met_[i]) % kNumSlots;
      while (slots_[slot] != 0) slot = (slot + 1) % kNumSlots;
      slots_[slot] = i + 1;
    }
  }
  size_t slot = hash_of(thread) % kNumSlots;
  for (; slots_[slot] != 0; slot = (slot + 1) % kNumSlots) {
    if (met_[slots_[slot] - 1] == thread) return;
  }
  if (met_.size() >= kMaxMet) {
    is_full_ = true;
    return;
  }
  met_.push_back(thread);
  slots_[slot] = static_cast<uint32_t>(met_.size());
}

bool GrammarStepper::finish(GrammarStacks& stacks, GrammarThreads& result) {
  result.clear();
  for (size_t i = 0; i < met_.size() && !is_full_; ++i) {
    const GrammarThread thread = met_[i];
    if (thread.node == GrammarData::kEndNode) {
      result.push_back(thread);
      continue;
    }
    const GrammarData::Node& node = data_.nodes[thread.node];
    const GrammarData::Node& next = data_.nodes[thread.node + 1];
    if (node.first_edge != next.first_edge) result.push_back(thread);
    for (uint32_t call = node.first_call; call < next.first_call; ++call) {
      const auto [start, return_node] = data_.calls[call];
      add(start, return_node == GrammarData::kEndNode ? thread.stack : stacks.push(return_node, thread.stack));
    }
    if (!node.accepting) continue;
    if (thread.stack == GrammarStacks::kBottom) {
      add(GrammarData::kEndNode, GrammarStacks::kBottom);
    } else {
      add(stacks.top(thread.stack), stacks.below(thread.stack));
    }
  }
  if (is_full_ || result.size() > kMaxThreads) {
    result.clear();
    return false;
  }
  std::sort(result.begin(), result.end());
  return true;
}

bool GrammarStepper::enter(uint32_t node, uint32_t stack, GrammarStacks& stacks, GrammarThreads& result) {
  begin();
  add(node, stack);
  return finish(stacks, result);
}

bool GrammarStepper::step(std::span<const GrammarThread> from, uint8_t byte, GrammarStacks& stacks,
                          GrammarThreads& result) {
  begin();
  for (const GrammarThread& thread : from) {
    if (thread.node == GrammarData::kEndNode) continue;
    const uint32_t end = data_.nodes[thread.node + 1].first_edge;
    for (uint32_t i = data_.nodes[thread.node].first_edge; i < end && data_.edges[i].low <= byte; ++i) {
      if (byte <= data_.edges[i].high) add(data_.edges[i].target, thread.stack);
    }
  }
  return finish(stacks, result);
}

bool grammar_matches(const GrammarData& data, std::string_view text) {
  GrammarStepper stepper(data);
  GrammarStacks stacks;
  GrammarThreads threads, before;
  stepper.enter(data.start, GrammarStacks::kBottom, stacks, threads);
  for (const char byte : text) {
    std::swap(threads, before);
    if (!stepper.step(before, static_cast<uint8_t>(byte), stacks, threads)) return false;
  }
  return !threads.empty() && threads[0].node == GrammarData::kEndNode;
}

}  // namespace hadal
