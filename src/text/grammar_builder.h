// From expressions over bytes to a compiled grammar. The front ends (regex, JSON schema, EBNF, tool calls) describe
// rules with it; it builds an automaton for each rule, removes what can never lead to an end, and refuses left
// recursion.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/code_point_set.h"
#include "text/grammar.h"

namespace hadal {

// Single-owner. Expressions are values of the builder that made them; they may be used any number of times.
class GrammarBuilder {
 public:
  using Expr = uint32_t;
  using Rule = uint32_t;
  static constexpr Expr kEmpty = 0;    // the empty text
  static constexpr Expr kNothing = 1;  // no text at all
  static constexpr uint32_t kUnbounded = UINT32_MAX;

  explicit GrammarBuilder(const GrammarLimits& limits);

  Expr literal(std::string_view bytes);
  Expr bytes(uint8_t low, uint8_t high);
  // One character as UTF-8.
  Expr code_points(const CodePointSet& set);
  Expr sequence(std::vector<Expr> parts);
  Expr choice(std::vector<Expr> alternatives);
  Expr repeat(Expr part, uint32_t min, uint32_t max);
  Expr optional(Expr part) { return repeat(part, 0, 1); }

  struct GraphEdge {
    uint32_t from = 0, to = 0;
    Expr label = kEmpty;
  };
  // The texts along the paths from node 0 to one of `accepts`.
  Expr graph(uint32_t num_nodes, std::vector<GraphEdge> edges, std::vector<uint32_t> accepts);

  // Rules may call each other before they are defined; the name is for messages.
  Rule add_rule(std::string name);
  void define(Rule rule, Expr body);
  Expr call(Rule rule);
  // A rule with this body, called.
  Expr as_rule(std::string name, Expr body);

  // The whole text is one `root`. Errors: kInvalidArgument (no text matches; left recursion, with the rule's name;
  // a rule that is called but not defined), kResourceExhausted (limits).
  Expected<Grammar> build(Rule root, std::vector<std::string> markers = {});

  const GrammarLimits& limits() const { return limits_; }
  bool out_of_time() const { return std::chrono::steady_clock::now() > deadline_; }

  enum class Kind : uint8_t {
    kEmpty,
    kNothing,
    kLiteral,
    kBytes,
    kCodePoints,
    kSequence,
    kChoice,
    kRepeat,
    kGraph,
    kCall
  };
  struct Node {
    Kind kind = Kind::kEmpty;
    // kBytes: first, last; kRepeat: part, min, max; kCall: rule; kSequence, kChoice: the parts; kLiteral, kCodePoints,
    // kGraph: index into the lists below.
    std::vector<uint32_t> values;
  };
  struct Graph {
    uint32_t num_nodes = 0;
    std::vector<GraphEdge> edges;
    std::vector<uint32_t> accepts;
  };
  struct RuleInfo {
    std::string name;
    std::optional<Expr> body;
  };
  // For the compiler (grammar_compiler.cc).
  const Node& node(Expr expr) const { return nodes_[expr]; }
  const std::string& literal_of(const Node& node) const { return literals_[node.values[0]]; }
  const CodePointSet& set_of(const Node& node) const { return sets_[node.values[0]]; }
  const Graph& graph_of(const Node& node) const { return graphs_[node.values[0]]; }
  const std::vector<RuleInfo>& rules() const { return rules_; }

 private:
  Expr add(Kind kind, std::vector<uint32_t> values);

  GrammarLimits limits_;
  std::chrono::steady_clock::time_point deadline_;
  std::vector<Node> nodes_;
  std::vector<std::string> literals_;
  std::vector<CodePointSet> sets_;
  std::vector<Graph> graphs_;
  std::vector<RuleInfo> rules_;
};

}  // namespace hadal
