#include "text/grammar_compiler.h"

#include <algorithm>

#include "text/grammar_data.h"
#include "text/grammar_nfa.h"

namespace hadal {
namespace {

using Expr = GrammarBuilder::Expr;
using Kind = GrammarBuilder::Kind;
using Rule = GrammarBuilder::Rule;

// Rules whose body has at most so many parts and no calls are put in place of their calls: a call costs a look at the
// stack for every token that leaves it.
constexpr int kMaxInlinedParts = 24;

// Adds the parts of `expr`; stops once more than kMaxInlinedParts. A call counts as too many.
int count_parts(const GrammarBuilder& builder, Expr expr, int count) {
  if (count > kMaxInlinedParts) return count;
  const GrammarBuilder::Node& node = builder.node(expr);
  switch (node.kind) {
    case Kind::kEmpty:
    case Kind::kNothing:
      return count;
    case Kind::kLiteral:
      return count + static_cast<int>(std::min<size_t>(builder.literal_of(node).size(), kMaxInlinedParts + 1));
    case Kind::kBytes:
      return count + 1;
    case Kind::kCodePoints:
      return count + static_cast<int>(std::min<size_t>(builder.set_of(node).ranges().size(), kMaxInlinedParts + 1));
    case Kind::kSequence:
    case Kind::kChoice:
      for (const Expr part : node.values) count = count_parts(builder, part, count);
      return count;
    case Kind::kRepeat: {
      const int part = count_parts(builder, node.values[0], 0);
      const uint32_t times = node.values[2] == GrammarBuilder::kUnbounded ? node.values[1] + 1 : node.values[2];
      return static_cast<int>(std::min<int64_t>(count + int64_t{part} * times, kMaxInlinedParts + 1));
    }
    case Kind::kGraph:
    case Kind::kCall:
      return kMaxInlinedParts + 1;
  }
  return count;
}

// A rule's automaton while the rules are joined: nodes are numbered over all rules, from 1.
struct Joined {
  std::vector<GrammarFragment::Node> nodes;  // [0] is kEndNode
  std::vector<Rule> owners;                  // by node
  std::vector<uint32_t> starts;              // by rule; 0: not compiled
};

class GrammarCompiler {
 public:
  GrammarCompiler(const GrammarBuilder& builder, Rule root) : builder_(builder), root_(root) {}

  Expected<Grammar> run(std::vector<std::string> markers) {
    HADAL_RETURN_IF_ERROR(choose_inlined());
    HADAL_RETURN_IF_ERROR(compile_rules());
    find_productive();
    if (!productive_[joined_.starts[root_]]) {
      return make_error(ErrorCode::kInvalidArgument, "no text at all matches the grammar");
    }
    remove_unproductive();
    HADAL_RETURN_IF_ERROR(check_left_recursion());
    auto data = flatten();
    data->markers = std::move(markers);
    return Grammar(std::move(data));
  }

 private:
  Status choose_inlined() {
    inlined_.assign(builder_.rules().size(), false);
    for (Rule rule = 0; rule < inlined_.size(); ++rule) {
      const GrammarBuilder::RuleInfo& info = builder_.rules()[rule];
      if (!info.body) {
        return make_error(ErrorCode::kInvalidArgument, "rule \"{}\" is used but not defined", info.name);
      }
      inlined_[rule] = rule != root_ && count_parts(builder_, *info.body, 0) <= kMaxInlinedParts;
    }
    return {};
  }

  // Rules that the root reaches.
  Status compile_rules() {
    joined_.nodes.emplace_back();
    joined_.owners.push_back(0);
    joined_.starts.assign(builder_.rules().size(), 0);
    std::vector<Rule> todo = {root_};
    std::vector<bool> is_queued(builder_.rules().size(), false);
    is_queued[root_] = true;
    size_t states_left = builder_.limits().max_states;
    while (!todo.empty()) {
      const Rule rule = todo.back();
      todo.pop_back();
      HADAL_ASSIGN_OR_RETURN(const GrammarNfa nfa,
                             build_grammar_nfa(builder_, *builder_.rules()[rule].body, inlined_, states_left));
      HADAL_ASSIGN_OR_RETURN(GrammarFragment fragment, remove_free_moves(builder_, nfa, states_left));
      states_left -= std::min<size_t>(states_left, std::max<size_t>(nfa.num_states, fragment.nodes.size()));
      const uint32_t start = static_cast<uint32_t>(joined_.nodes.size());
      joined_.starts[rule] = start;
      for (GrammarFragment::Node& node : fragment.nodes) {
        for (auto& edge : node.edges) edge.target += start;
        for (auto& call : node.calls) {
          call.target += start;
          if (!is_queued[call.rule]) todo.push_back(call.rule);
          is_queued[call.rule] = true;
        }
        joined_.nodes.push_back(std::move(node));
        joined_.owners.push_back(rule);
      }
    }
    return {};
  }

  // productive_[node]: the node's rule can end from there. A worklist over the inverse of edges and calls.
  void find_productive() {
    const auto& nodes = joined_.nodes;
    std::vector<std::vector<uint32_t>> before(nodes.size());  // nodes to look at again
    for (uint32_t i = 0; i < nodes.size(); ++i) {
      for (const auto& edge : nodes[i].edges) before[edge.target].push_back(i);
      for (const auto& call : nodes[i].calls) {
        before[call.target].push_back(i);
        before[joined_.starts[call.rule]].push_back(i);
      }
    }
    productive_.assign(nodes.size(), false);
    std::vector<uint32_t> todo;
    for (uint32_t i = 0; i < nodes.size(); ++i) {
      if (nodes[i].accepting) productive_[i] = true, todo.push_back(i);
    }
    while (!todo.empty()) {
      const uint32_t done = todo.back();
      todo.pop_back();
      for (const uint32_t i : before[done]) {
        if (productive_[i] || !leads_on(nodes[i])) continue;
        productive_[i] = true;
        todo.push_back(i);
      }
    }
  }

  bool is_productive(const GrammarFragment::Call& call) const {
    return productive_[call.target] && productive_[joined_.starts[call.rule]];
  }
  bool leads_on(const GrammarFragment::Node& node) const {
    return std::any_of(node.edges.begin(), node.edges.end(), [&](const auto& e) { return productive_[e.target]; }) ||
           std::any_of(node.calls.begin(), node.calls.end(), [&](const auto& call) { return is_productive(call); });
  }

  void remove_unproductive() {
    for (GrammarFragment::Node& node : joined_.nodes) {
      std::erase_if(node.edges, [&](const auto& edge) { return !productive_[edge.target]; });
      std::erase_if(node.calls, [&](const auto& call) { return !is_productive(call); });
    }
  }

  // Visits what a rule reaches before its first byte, calls of rules that may be empty passed over. `visit(node)`.
  template <typename Visit>
  void visit_first_nodes(Rule rule, const Visit& visit) {
    marks_.resize(joined_.nodes.size(), 0);
    ++mark_;
    std::vector<uint32_t> todo = {joined_.starts[rule]};
    marks_[todo[0]] = mark_;
    while (!todo.empty()) {
      const GrammarFragment::Node& node = joined_.nodes[todo.back()];
      todo.pop_back();
      visit(node);
      for (const auto& call : node.calls) {
        if (!is_nullable_[call.rule] || marks_[call.target] == mark_) continue;
        marks_[call.target] = mark_;
        todo.push_back(call.target);
      }
    }
  }

  std::vector<Rule> first_calls(Rule rule) {
    std::vector<Rule> called;
    visit_first_nodes(rule, [&](const GrammarFragment::Node& node) {
      for (const auto& call : node.calls) called.push_back(call.rule);
    });
    std::sort(called.begin(), called.end());
    called.erase(std::unique(called.begin(), called.end()), called.end());
    return called;
  }

  // A rule is looked at again when one that it calls turns out to be possibly empty.
  Status find_nullable() {
    const size_t num_rules = joined_.starts.size();
    is_nullable_.assign(num_rules, false);
    std::vector<std::vector<Rule>> callers(num_rules);
    for (size_t i = 1; i < joined_.nodes.size(); ++i) {
      for (const auto& call : joined_.nodes[i].calls) {
        auto& list = callers[call.rule];
        if (list.empty() || list.back() != joined_.owners[i]) list.push_back(joined_.owners[i]);
      }
    }
    std::vector<Rule> todo;
    for (Rule rule = 0; rule < num_rules; ++rule) {
      if (joined_.starts[rule] != 0) todo.push_back(rule);
    }
    while (!todo.empty()) {
      if (builder_.out_of_time()) {
        return make_error(ErrorCode::kResourceExhausted, "compiling the grammar takes longer than {:g} s",
                          builder_.limits().max_seconds);
      }
      const Rule rule = todo.back();
      todo.pop_back();
      if (is_nullable_[rule]) continue;
      bool may_end = false;
      visit_first_nodes(rule, [&](const GrammarFragment::Node& node) { may_end |= node.accepting; });
      if (!may_end) continue;
      is_nullable_[rule] = true;
      todo.insert(todo.end(), callers[rule].begin(), callers[rule].end());
    }
    return {};
  }

  // A rule that calls itself before its first byte would push without end.
  Status check_left_recursion() {
    HADAL_RETURN_IF_ERROR(find_nullable());
    const size_t num_rules = joined_.starts.size();
    // Depth first with an own stack: 1 on the path, 2 done.
    std::vector<uint8_t> state(num_rules, 0);
    for (Rule root = 0; root < num_rules; ++root) {
      if (joined_.starts[root] == 0 || state[root] != 0) continue;
      std::vector<std::pair<Rule, std::vector<Rule>>> path;
      const auto enter = [&](Rule rule) {
        state[rule] = 1;
        path.emplace_back(rule, first_calls(rule));
      };
      enter(root);
      while (!path.empty()) {
        if (path.back().second.empty()) {
          state[path.back().first] = 2;
          path.pop_back();
          continue;
        }
        const Rule next = path.back().second.back();
        path.back().second.pop_back();
        if (state[next] == 1) {
          return make_error(ErrorCode::kInvalidArgument,
                            "rule \"{}\" begins with itself (left recursion): let something come before it",
                            builder_.rules()[next].name);
        }
        if (state[next] == 0) enter(next);
      }
    }
    return {};
  }

  std::shared_ptr<GrammarData> flatten() const {
    auto data = std::make_shared<GrammarData>();
    data->nodes.reserve(joined_.nodes.size() + 1);
    for (const GrammarFragment::Node& node : joined_.nodes) {
      data->nodes.push_back(
          {static_cast<uint32_t>(data->edges.size()), static_cast<uint32_t>(data->calls.size()), node.accepting});
      for (const auto& edge : node.edges) data->edges.push_back({edge.low, edge.high, edge.target});
      for (const auto& call : node.calls) {
        const GrammarFragment::Node& next = joined_.nodes[call.target];
        const bool is_tail = next.accepting && next.edges.empty() && next.calls.empty();
        data->calls.push_back({joined_.starts[call.rule], is_tail ? GrammarData::kEndNode : call.target});
      }
    }
    data->nodes.push_back(
        {static_cast<uint32_t>(data->edges.size()), static_cast<uint32_t>(data->calls.size()), false});
    data->start = joined_.starts[root_];
    return data;
  }

  const GrammarBuilder& builder_;
  const Rule root_;
  std::vector<bool> inlined_;
  Joined joined_;
  std::vector<bool> productive_, is_nullable_;
  std::vector<uint32_t> marks_;  // by node: mark_ of the last visit
  uint32_t mark_ = 0;
};

}  // namespace

Expected<Grammar> compile_grammar(const GrammarBuilder& builder, GrammarBuilder::Rule root,
                                  std::vector<std::string> markers) {
  return GrammarCompiler(builder, root).run(std::move(markers));
}

}  // namespace hadal
