// One rule of a grammar as an automaton, first with free moves, then without. Included by grammar_*.cc only.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "text/grammar_builder.h"

namespace hadal {

// Thompson's construction: state 0 starts, `accept` ends.
struct GrammarNfa {
  enum class EdgeKind : uint8_t { kFree, kBytes, kCall };
  struct Edge {
    uint32_t from = 0, to = 0;
    EdgeKind kind = EdgeKind::kFree;
    uint8_t low = 0, high = 0;  // kBytes
    uint32_t rule = 0;          // kCall
  };
  uint32_t num_states = 1;
  uint32_t accept = 0;
  std::vector<Edge> edges;
};

// `inlined`: rules whose body is put in the place of the call.
// Errors: kResourceExhausted when more than `max_states` states, or as many steps, are needed.
Expected<GrammarNfa> build_grammar_nfa(const GrammarBuilder& builder, GrammarBuilder::Expr body,
                                       const std::vector<bool>& inlined, size_t max_states);

// Without free moves. Node 0 starts.
struct GrammarFragment {
  struct Edge {
    uint8_t low = 0, high = 0;
    uint32_t target = 0;
  };
  struct Call {
    uint32_t rule = 0, target = 0;
  };
  struct Node {
    bool accepting = false;
    std::vector<Edge> edges;  // ascending by `low`
    std::vector<Call> calls;
  };
  std::vector<Node> nodes;
};

// Deterministic where the subset construction stays within a multiple of the automaton's size, otherwise with
// overlapping edges. Errors: kResourceExhausted.
Expected<GrammarFragment> remove_free_moves(const GrammarBuilder& builder, const GrammarNfa& nfa, size_t max_states);

}  // namespace hadal
