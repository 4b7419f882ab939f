// Subset construction for one rule of a grammar: bytes and calls are both symbols.
#include <algorithm>
#include <unordered_map>

#include "text/grammar_nfa.h"

namespace hadal {
namespace {

using EdgeKind = GrammarNfa::EdgeKind;

constexpr std::string_view kOutOfTime = "compiling the grammar takes longer than {:g} s: a simpler one is needed";

// Edges of each state, side by side.
class EdgeIndex {
 public:
  explicit EdgeIndex(const GrammarNfa& nfa) : begin_(nfa.num_states + 1), edges_(nfa.edges.size()) {
    for (const GrammarNfa::Edge& edge : nfa.edges) ++begin_[edge.from + 1];
    for (size_t i = 1; i < begin_.size(); ++i) begin_[i] += begin_[i - 1];
    std::vector<uint32_t> next(begin_.begin(), begin_.end() - 1);
    for (const GrammarNfa::Edge& edge : nfa.edges) edges_[next[edge.from]++] = edge;
  }
  std::span<const GrammarNfa::Edge> of(uint32_t state) const {
    return std::span(edges_).subspan(begin_[state], begin_[state + 1] - begin_[state]);
  }

 private:
  std::vector<uint32_t> begin_;
  std::vector<GrammarNfa::Edge> edges_;
};

class FreeMoveRemover {
 public:
  FreeMoveRemover(const GrammarBuilder& builder, const GrammarNfa& nfa, size_t max_states)
      : builder_(builder), nfa_(nfa), max_states_(max_states), edges_(nfa), marks_(nfa.num_states) {}

  Expected<GrammarFragment> run() {
    const size_t max_nodes = std::min(max_states_, 4 * size_t{nfa_.num_states} + 4096);
    const size_t max_members = std::min(size_t{32} << 20, 256 * size_t{nfa_.num_states} + (size_t{1} << 20));
    if (determinize(max_nodes, max_members)) return std::move(fragment_);
    if (!out_of_time_) keep_overlapping_edges();
    if (out_of_time_) {
      return make_error(ErrorCode::kResourceExhausted, fmt::runtime(kOutOfTime), builder_.limits().max_seconds);
    }
    if (exhausted_) {
      return make_error(ErrorCode::kResourceExhausted, "the grammar needs more than {} states: a simpler one is needed",
                        max_states_);
    }
    return std::move(fragment_);
  }

 private:
  // Appends what `states` reach by free moves to members_, sorted; keeps only states with something to do.
  void close(std::vector<uint32_t>& states) {
    ++mark_;
    members_.clear();
    std::vector<uint32_t>& todo = states;
    for (const uint32_t state : todo) marks_[state] = mark_;
    while (!todo.empty()) {
      const uint32_t state = todo.back();
      todo.pop_back();
      bool matters = state == nfa_.accept;
      for (const GrammarNfa::Edge& edge : edges_.of(state)) {
        if (edge.kind != EdgeKind::kFree) {
          matters = true;
        } else if (marks_[edge.to] != mark_) {
          marks_[edge.to] = mark_;
          todo.push_back(edge.to);
        }
      }
      num_members_ += 1;
      if (matters) members_.push_back(state);
    }
    std::sort(members_.begin(), members_.end());
  }

  // The node of the set in members_.
  uint32_t intern() {
    uint64_t hash = 0x9E3779B97F4A7C15u;
    for (const uint32_t member : members_) hash = (hash ^ member) * 0xFF51AFD7ED558CCDu, hash ^= hash >> 32;
    auto [begin, end] = by_hash_.equal_range(hash);
    for (; begin != end; ++begin) {
      if (sets_[begin->second] == members_) return begin->second;
    }
    const uint32_t node = static_cast<uint32_t>(sets_.size());
    by_hash_.emplace(hash, node);
    sets_.push_back(members_);
    fragment_.nodes.emplace_back();
    return node;
  }

  uint32_t target_of(std::vector<uint32_t>& states) {
    close(states);
    return intern();
  }

  bool determinize(size_t max_nodes, size_t max_members) {
    std::vector<uint32_t> states = {0};
    target_of(states);
    for (uint32_t node = 0; node < sets_.size(); ++node) {
      if (node % 256 == 0 && builder_.out_of_time()) {
        out_of_time_ = true;
        return false;
      }
      if (sets_.size() > max_nodes || num_members_ > max_members) return false;
      expand(node);
    }
    return sets_.size() <= max_nodes;
  }

  void expand(uint32_t node) {
    byte_edges_.clear();
    call_edges_.clear();
    bool accepting = false;
    for (const uint32_t state : sets_[node]) {
      accepting |= state == nfa_.accept;
      for (const GrammarNfa::Edge& edge : edges_.of(state)) {
        if (edge.kind == EdgeKind::kBytes) byte_edges_.push_back(edge);
        if (edge.kind == EdgeKind::kCall) call_edges_.push_back(edge);
      }
    }
    fragment_.nodes[node].accepting = accepting;
    expand_bytes(node);
    expand_calls(node);
  }

  void expand_bytes(uint32_t node) {
    std::sort(byte_edges_.begin(), byte_edges_.end(),
              [](const auto& a, const auto& b) { return a.low != b.low ? a.low < b.low : a.to < b.to; });
    std::vector<uint32_t> active, states;  // indices into byte_edges_
    size_t next = 0;
    for (int low = 0; low < 256;) {
      std::erase_if(active, [&](uint32_t i) { return byte_edges_[i].high < low; });
      while (next < byte_edges_.size() && byte_edges_[next].low == low) active.push_back(static_cast<uint32_t>(next++));
      // Up to where the same edges apply.
      int high = next < byte_edges_.size() ? byte_edges_[next].low - 1 : 255;
      for (const uint32_t i : active) high = std::min<int>(high, byte_edges_[i].high);
      if (!active.empty()) {
        states.clear();
        for (const uint32_t i : active) states.push_back(byte_edges_[i].to);
        add_edge(node, low, high, target_of(states));
      }
      low = high + 1;
    }
  }

  void add_edge(uint32_t node, int low, int high, uint32_t target) {
    auto& edges = fragment_.nodes[node].edges;
    if (!edges.empty() && edges.back().target == target && edges.back().high + 1 == low) {
      edges.back().high = static_cast<uint8_t>(high);
    } else {
      edges.push_back({static_cast<uint8_t>(low), static_cast<uint8_t>(high), target});
    }
  }

  void expand_calls(uint32_t node) {
    std::sort(call_edges_.begin(), call_edges_.end(),
              [](const auto& a, const auto& b) { return a.rule != b.rule ? a.rule < b.rule : a.to < b.to; });
    std::vector<uint32_t> states;
    for (size_t i = 0; i < call_edges_.size();) {
      const uint32_t rule = call_edges_[i].rule;
      states.clear();
      for (; i < call_edges_.size() && call_edges_[i].rule == rule; ++i) states.push_back(call_edges_[i].to);
      const uint32_t target = target_of(states);
      fragment_.nodes[node].calls.push_back({rule, target});
    }
  }

  // One node per state that a byte or a call leads to.
  void keep_overlapping_edges() {
    fragment_.nodes.clear();
    num_members_ = 0;
    std::vector<uint32_t> node_of(nfa_.num_states, UINT32_MAX), states_of_nodes;
    const auto node_for = [&](uint32_t state) {
      if (node_of[state] == UINT32_MAX) {
        node_of[state] = static_cast<uint32_t>(states_of_nodes.size());
        states_of_nodes.push_back(state);
        fragment_.nodes.emplace_back();
      }
      return node_of[state];
    };
    node_for(0);
    std::vector<uint32_t> states;
    size_t num_edges = 0;
    for (uint32_t node = 0; node < states_of_nodes.size(); ++node) {
      if (node % 256 == 0 && builder_.out_of_time()) out_of_time_ = true;
      if (num_members_ > (size_t{64} << 20) || num_edges > 16 * max_states_) exhausted_ = true;
      if (out_of_time_ || exhausted_) return;
      states = {states_of_nodes[node]};
      close(states);
      for (const uint32_t state : members_) {
        if (state == nfa_.accept) fragment_.nodes[node].accepting = true;
        for (const GrammarNfa::Edge& edge : edges_.of(state)) {
          if (edge.kind == EdgeKind::kFree) continue;
          const uint32_t target = node_for(edge.to);
          if (edge.kind == EdgeKind::kBytes) fragment_.nodes[node].edges.push_back({edge.low, edge.high, target});
          if (edge.kind == EdgeKind::kCall) fragment_.nodes[node].calls.push_back({edge.rule, target});
          ++num_edges;
        }
      }
      std::stable_sort(fragment_.nodes[node].edges.begin(), fragment_.nodes[node].edges.end(),
                       [](const auto& a, const auto& b) { return a.low < b.low; });
    }
  }

  const GrammarBuilder& builder_;
  const GrammarNfa& nfa_;
  const size_t max_states_;
  const EdgeIndex edges_;
  GrammarFragment fragment_;
  bool out_of_time_ = false, exhausted_ = false;

  std::vector<uint32_t> marks_;  // by state: mark_ of the last closure that met it
  uint32_t mark_ = 0;
  std::vector<uint32_t> members_;
  size_t num_members_ = 0;

  std::vector<std::vector<uint32_t>> sets_;  // by node
  std::unordered_multimap<uint64_t, uint32_t> by_hash_;
  std::vector<GrammarNfa::Edge> byte_edges_, call_edges_;  // of the node being expanded
};

}  // namespace

Expected<GrammarFragment> remove_free_moves(const GrammarBuilder& builder, const GrammarNfa& nfa, size_t max_states) {
  return FreeMoveRemover(builder, nfa, max_states).run();
}

}  // namespace hadal
