// A compiled grammar: a pushdown automaton over bytes. Each rule is a fragment of deterministic nodes (or, where that
// would explode, of nodes with overlapping edges); calls between rules push the node to return to. Included by the
// grammar_*.cc files only.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hadal {

class GrammarMaskCache;

struct GrammarData {
  struct Edge {
    uint8_t low = 0, high = 0;  // inclusive
    uint32_t target = 0;        // node
  };
  struct Call {
    uint32_t start = 0;        // the called rule's first node
    uint32_t return_node = 0;  // kEndNode: the caller ends with this call, nothing is pushed
  };
  struct Node {
    uint32_t first_edge = 0, first_call = 0;  // up to those of the next node
    bool accepting = false;                   // the rule may end here
  };

  // What a thread reaches that has left the outermost rule.
  static constexpr uint32_t kEndNode = 0;

  std::vector<Node> nodes;  // one more than there are
  std::vector<Edge> edges;  // of a node: ascending by `low`
  std::vector<Call> calls;
  uint32_t start = 0;
  // Special tokens that count as their text in this grammar.
  std::vector<std::string> markers;

  uint32_t num_nodes() const { return static_cast<uint32_t>(nodes.size()) - 1; }

  // Masks by vocabulary, filled by matchers; the cache has a lock of its own.
  mutable std::mutex caches_mutex;
  mutable std::vector<std::shared_ptr<GrammarMaskCache>> caches;
};

// Whether the whole text is of the grammar.
bool grammar_matches(const GrammarData& data, std::string_view text);

}  // namespace hadal
