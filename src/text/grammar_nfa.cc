#include "text/grammar_nfa.h"

#include <algorithm>

namespace hadal {
namespace {

using Expr = GrammarBuilder::Expr;
using Kind = GrammarBuilder::Kind;

// Deeper expressions are refused rather than risking the stack; the front ends stop long before.
constexpr int kMaxDepth = 2000;

class NfaBuilder {
 public:
  NfaBuilder(const GrammarBuilder& builder, const std::vector<bool>& inlined, size_t max_states)
      : builder_(builder), inlined_(inlined), max_states_(max_states) {}

  Expected<GrammarNfa> run(Expr body) {
    nfa_.accept = emit(body, 0, 0);
    if (exhausted_) {
      return make_error(ErrorCode::kResourceExhausted,
                        "the grammar needs more than {} states: smaller repeat counts or fewer alternatives",
                        max_states_);
    }
    return std::move(nfa_);
  }

 private:
  uint32_t new_state() {
    if (nfa_.num_states >= max_states_) exhausted_ = true;
    return exhausted_ ? 0 : nfa_.num_states++;
  }
  void free_move(uint32_t from, uint32_t to) { nfa_.edges.push_back({from, to}); }
  uint32_t byte_edge(uint32_t from, uint8_t low, uint8_t high) {
    const uint32_t to = new_state();
    byte_edge(from, low, high, to);
    return to;
  }
  void byte_edge(uint32_t from, uint8_t low, uint8_t high, uint32_t to) {
    nfa_.edges.push_back({from, to, GrammarNfa::EdgeKind::kBytes, low, high});
  }

  // Adds `expr` behind `from`; returns the state at its end.
  uint32_t emit(Expr expr, uint32_t from, int depth) {
    if (depth > kMaxDepth || ++num_steps_ > 8 * max_states_) exhausted_ = true;
    if (exhausted_) return 0;
    const GrammarBuilder::Node& node = builder_.node(expr);
    switch (node.kind) {
      case Kind::kEmpty:
        return from;
      case Kind::kNothing:
        return new_state();
      case Kind::kLiteral:
        for (const char byte : builder_.literal_of(node)) {
          from = byte_edge(from, static_cast<uint8_t>(byte), static_cast<uint8_t>(byte));
        }
        return from;
      case Kind::kBytes:
        return byte_edge(from, static_cast<uint8_t>(node.values[0]), static_cast<uint8_t>(node.values[1]));
      case Kind::kCodePoints:
        return emit_code_points(builder_.set_of(node), from);
      case Kind::kSequence:
        for (const Expr part : node.values) from = emit(part, from, depth + 1);
        return from;
      case Kind::kChoice: {
        const uint32_t end = new_state();
        for (const Expr part : node.values) free_move(emit(part, from, depth + 1), end);
        return end;
      }
      case Kind::kRepeat:
        return emit_repeat(node, from, depth);
      case Kind::kGraph:
        return emit_graph(builder_.graph_of(node), from, depth);
      case Kind::kCall: {
        const uint32_t rule = node.values[0];
        if (inlined_[rule]) return emit(*builder_.rules()[rule].body, from, depth + 1);
        const uint32_t to = new_state();
        nfa_.edges.push_back({from, to, GrammarNfa::EdgeKind::kCall, 0, 0, rule});
        return to;
      }
    }
    return from;
  }

  uint32_t emit_repeat(const GrammarBuilder::Node& node, uint32_t from, int depth) {
    const Expr part = node.values[0];
    const uint32_t min = node.values[1], max = node.values[2];
    for (uint32_t i = 0; i < min && !exhausted_; ++i) from = emit(part, from, depth + 1);
    if (max == GrammarBuilder::kUnbounded) {
      const uint32_t loop = new_state();
      free_move(from, loop);
      free_move(emit(part, loop, depth + 1), loop);
      return loop;
    }
    const uint32_t end = new_state();
    for (uint32_t i = min; i < max && !exhausted_; ++i) {
      free_move(from, end);
      from = emit(part, from, depth + 1);
    }
    free_move(from, end);
    return end;
  }

  uint32_t emit_graph(const GrammarBuilder::Graph& graph, uint32_t from, int depth) {
    std::vector<uint32_t> states(graph.num_nodes);
    for (uint32_t& state : states) state = new_state();
    if (exhausted_) return 0;
    free_move(from, states[0]);
    for (const GrammarBuilder::GraphEdge& edge : graph.edges) {
      free_move(emit(edge.label, states[edge.from], depth + 1), states[edge.to]);
      if (exhausted_) return 0;
    }
    const uint32_t end = new_state();
    for (const uint32_t accept : graph.accepts) free_move(states[accept], end);
    return end;
  }

  // Ends of sequences that take any continuation byte are shared.
  uint32_t emit_code_points(const CodePointSet& set, uint32_t from) {
    const uint32_t end = new_state();
    uint32_t tails[4] = {end, 0, 0, 0};  // by the number of continuation bytes still due
    for (const CodePointSet::Range& range : set.ranges()) {
      emit_code_point_range(range.low, range.high, from, tails);
    }
    return end;
  }

  uint32_t tail(uint32_t (&tails)[4], int num_bytes) {
    if (num_bytes > 0 && tails[num_bytes] == 0) {
      const uint32_t next = tail(tails, num_bytes - 1);
      tails[num_bytes] = new_state();
      byte_edge(tails[num_bytes], 0x80, 0xBF, next);
    }
    return tails[num_bytes];
  }

  void emit_code_point_range(char32_t low, char32_t high, uint32_t from, uint32_t (&tails)[4]) {
    // Cut where the number of bytes changes.
    for (const char32_t last : {char32_t{0x7F}, char32_t{0x7FF}, char32_t{0xFFFF}}) {
      if (low <= last && high > last) {
        emit_code_point_range(low, last, from, tails);
        return emit_code_point_range(last + 1, high, from, tails);
      }
    }
    const int num_continuations = high <= 0x7F ? 0 : high <= 0x7FF ? 1 : high <= 0xFFFF ? 2 : 3;
    constexpr uint8_t kLead[] = {0x00, 0xC0, 0xE0, 0xF0};
    emit_bytes(low, high, num_continuations, kLead[num_continuations], from, tails);
  }

  // Characters of which the leading bits above the next `6 * num_left` ones are still to be written, with `prefix`.
  void emit_bytes(char32_t low, char32_t high, int num_left, uint8_t prefix, uint32_t from, uint32_t (&tails)[4]) {
    const int shift = 6 * num_left;
    const char32_t mask = (char32_t{1} << shift) - 1;
    const char32_t first = low >> shift, last = high >> shift;
    const auto byte = [&](char32_t bits) { return static_cast<uint8_t>(prefix | bits); };
    const bool whole_first = (low & mask) == 0, whole_last = (high & mask) == mask;
    if (num_left == 0 || (whole_first && whole_last)) {
      return byte_edge(from, byte(first), byte(last), tail(tails, num_left));
    }
    if (first == last) {
      const uint32_t next = byte_edge(from, byte(first), byte(first));
      return emit_bytes(low & mask, high & mask, num_left - 1, 0x80, next, tails);
    }
    char32_t middle_first = first, middle_last = last;
    if (!whole_first) {
      const uint32_t next = byte_edge(from, byte(first), byte(first));
      emit_bytes(low & mask, mask, num_left - 1, 0x80, next, tails);
      ++middle_first;
    }
    if (!whole_last) {
      const uint32_t next = byte_edge(from, byte(last), byte(last));
      emit_bytes(0, high & mask, num_left - 1, 0x80, next, tails);
      --middle_last;
    }
    if (middle_first <= middle_last) {
      byte_edge(from, byte(middle_first), byte(middle_last), tail(tails, num_left));
    }
  }

  const GrammarBuilder& builder_;
  const std::vector<bool>& inlined_;
  const size_t max_states_;
  size_t num_steps_ = 0;
  bool exhausted_ = false;
  GrammarNfa nfa_;
};

}  // namespace

Expected<GrammarNfa> build_grammar_nfa(const GrammarBuilder& builder, Expr body, const std::vector<bool>& inlined,
                                       size_t max_states) {
  return NfaBuilder(builder, inlined, std::min(max_states, size_t{UINT32_MAX / 2})).run(body);
}

}  // namespace hadal
