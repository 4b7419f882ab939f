#include "text/grammar_builder.h"

#include <algorithm>

#include "text/grammar_compiler.h"

namespace hadal {

GrammarBuilder::GrammarBuilder(const GrammarLimits& limits)
    : limits_(limits),
      deadline_(std::chrono::steady_clock::now() +
                std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                    std::chrono::duration<double>(std::clamp(limits.max_seconds, 0.0, 3600.0)))) {
  add(Kind::kEmpty, {});
  add(Kind::kNothing, {});
}

GrammarBuilder::Expr GrammarBuilder::add(Kind kind, std::vector<uint32_t> values) {
  nodes_.push_back({kind, std::move(values)});
  return static_cast<Expr>(nodes_.size() - 1);
}

GrammarBuilder::Expr GrammarBuilder::literal(std::string_view bytes) {
  if (bytes.empty()) return kEmpty;
  literals_.emplace_back(bytes);
  return add(Kind::kLiteral, {static_cast<uint32_t>(literals_.size() - 1)});
}

GrammarBuilder::Expr GrammarBuilder::bytes(uint8_t low, uint8_t high) { return add(Kind::kBytes, {low, high}); }

GrammarBuilder::Expr GrammarBuilder::code_points(const CodePointSet& set) {
  if (set.empty()) return kNothing;
  sets_.push_back(set);
  return add(Kind::kCodePoints, {static_cast<uint32_t>(sets_.size() - 1)});
}

GrammarBuilder::Expr GrammarBuilder::sequence(std::vector<Expr> parts) {
  std::erase(parts, kEmpty);
  if (std::find(parts.begin(), parts.end(), kNothing) != parts.end()) return kNothing;
  if (parts.empty()) return kEmpty;
  if (parts.size() == 1) return parts[0];
  return add(Kind::kSequence, std::move(parts));
}

GrammarBuilder::Expr GrammarBuilder::choice(std::vector<Expr> alternatives) {
  std::erase(alternatives, kNothing);
  if (alternatives.empty()) return kNothing;
  if (std::all_of(alternatives.begin(), alternatives.end(), [&](Expr e) { return e == alternatives[0]; })) {
    return alternatives[0];
  }
  return add(Kind::kChoice, std::move(alternatives));
}

GrammarBuilder::Expr GrammarBuilder::repeat(Expr part, uint32_t min, uint32_t max) {
  if (part == kEmpty || max == 0) return kEmpty;
  if (part == kNothing) return min == 0 ? kEmpty : kNothing;
  if (min == 1 && max == 1) return part;
  return add(Kind::kRepeat, {part, min, max});
}

GrammarBuilder::Expr GrammarBuilder::graph(uint32_t num_nodes, std::vector<GraphEdge> edges,
                                           std::vector<uint32_t> accepts) {
  graphs_.push_back({num_nodes, std::move(edges), std::move(accepts)});
  return add(Kind::kGraph, {static_cast<uint32_t>(graphs_.size() - 1)});
}

GrammarBuilder::Rule GrammarBuilder::add_rule(std::string name) {
  rules_.push_back({std::move(name), std::nullopt});
  return static_cast<Rule>(rules_.size() - 1);
}

void GrammarBuilder::define(Rule rule, Expr body) { rules_[rule].body = body; }

GrammarBuilder::Expr GrammarBuilder::call(Rule rule) { return add(Kind::kCall, {rule}); }

GrammarBuilder::Expr GrammarBuilder::as_rule(std::string name, Expr body) {
  const Rule rule = add_rule(std::move(name));
  define(rule, body);
  return call(rule);
}

Expected<Grammar> GrammarBuilder::build(Rule root, std::vector<std::string> markers) {
  return compile_grammar(*this, root, std::move(markers));
}

}  // namespace hadal
