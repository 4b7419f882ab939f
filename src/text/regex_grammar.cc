#include "text/regex_grammar.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "text/regex_parser.h"

namespace hadal {
namespace {

using Expr = GrammarBuilder::Expr;
using Kind = RegexNode::Kind;

// An automaton over characters, with free moves. State 0 starts.
struct CharacterNfa {
  static constexpr uint32_t kFree = UINT32_MAX;
  struct Edge {
    uint32_t from = 0, to = 0;
    uint32_t set = kFree;  // index into `sets`
  };
  uint32_t num_states = 1;
  std::vector<Edge> edges;
  std::vector<CodePointSet> sets;
  std::vector<uint32_t> accepts;
};

class CharacterNfaBuilder {
 public:
  CharacterNfaBuilder(bool search, size_t max_states) : search_(search), max_states_(max_states) {}

  Expected<CharacterNfa> run(const RegexNode& root) {
    const uint32_t any = add_set(CodePointSet::all());
    begin_ = 0;
    const uint32_t entry = new_state();
    free_move(begin_, entry);
    if (search_) nfa_.edges.push_back({entry, entry, any});
    exact_end_ = new_state();
    HADAL_ASSIGN_OR_RETURN(const uint32_t end, emit(root, entry, {true, true}));
    if (search_) nfa_.edges.push_back({end, end, any});
    nfa_.accepts = {end, exact_end_};
    return std::move(nfa_);
  }

 private:
  // Nothing but anchors lies between here and the pattern's begin, or its end.
  struct Place {
    bool at_begin = false, at_end = false;
  };

  uint32_t new_state() { return nfa_.num_states++; }
  void free_move(uint32_t from, uint32_t to) { nfa_.edges.push_back({from, to}); }
  uint32_t add_set(const CodePointSet& set) {
    const auto [found, is_new] = set_ids_.try_emplace(set, static_cast<uint32_t>(nfa_.sets.size()));
    if (is_new) nfa_.sets.push_back(set);
    return found->second;
  }

  Expected<uint32_t> emit(const RegexNode& node, uint32_t from, Place place) {
    if (++num_steps_ > max_states_ || nfa_.num_states > max_states_) {
      return make_error(ErrorCode::kResourceExhausted, "regex: more than {} states, smaller repeat counts are needed",
                        max_states_);
    }
    switch (node.kind) {
      case Kind::kEmpty:
        return from;
      case Kind::kSet: {
        const uint32_t to = new_state();
        nfa_.edges.push_back({from, to, add_set(node.set)});
        return to;
      }
      case Kind::kSequence:
        return emit_sequence(node, from, place);
      case Kind::kChoice: {
        const uint32_t end = new_state();
        for (const RegexNode& part : node.parts) {
          HADAL_ASSIGN_OR_RETURN(const uint32_t part_end, emit(part, from, place));
          free_move(part_end, end);
        }
        return end;
      }
      case Kind::kRepeat:
        return emit_repeat(node, from, place);
      case Kind::kBegin: {
        if (!place.at_begin)
          return make_error(ErrorCode::kUnsupported, "regex: '^' inside of a pattern is not supported");
        const uint32_t to = new_state();
        free_move(begin_, to);
        return to;
      }
      case Kind::kEnd: {
        if (!place.at_end)
          return make_error(ErrorCode::kUnsupported, "regex: '$' inside of a pattern is not supported");
        free_move(from, exact_end_);
        return new_state();  // nothing leads here: nothing can follow
      }
    }
    return from;
  }

  static bool is_anchor(const RegexNode& node) {
    if (node.kind == Kind::kSequence || node.kind == Kind::kChoice) {
      return std::all_of(node.parts.begin(), node.parts.end(), is_anchor);
    }
    return node.kind == Kind::kEmpty || node.kind == Kind::kBegin || node.kind == Kind::kEnd;
  }

  Expected<uint32_t> emit_sequence(const RegexNode& node, uint32_t from, Place place) {
    size_t first = 0, last = node.parts.size();  // parts that are more than anchors: [first, last)
    while (first < node.parts.size() && is_anchor(node.parts[first])) ++first;
    while (last > first && is_anchor(node.parts[last - 1])) --last;
    for (size_t i = 0; i < node.parts.size(); ++i) {
      const Place inner{place.at_begin && i <= first, place.at_end && i + 1 >= last};
      HADAL_ASSIGN_OR_RETURN(from, emit(node.parts[i], from, inner));
    }
    return from;
  }

  Expected<uint32_t> emit_repeat(const RegexNode& node, uint32_t from, Place place) {
    const RegexNode& part = node.parts[0];
    if (node.max != 1) place = {};
    for (uint32_t i = 0; i < node.min; ++i) {
      HADAL_ASSIGN_OR_RETURN(from, emit(part, from, place));
    }
    if (node.max == RegexNode::kUnbounded) {
      const uint32_t loop = new_state();
      free_move(from, loop);
      HADAL_ASSIGN_OR_RETURN(const uint32_t end, emit(part, loop, place));
      free_move(end, loop);
      return loop;
    }
    const uint32_t end = new_state();
    for (uint32_t i = node.min; i < node.max; ++i) {
      free_move(from, end);
      HADAL_ASSIGN_OR_RETURN(from, emit(part, from, place));
    }
    free_move(from, end);
    return end;
  }

  const bool search_;
  const size_t max_states_;
  size_t num_steps_ = 0;
  uint32_t begin_ = 0, exact_end_ = 0;
  std::map<CodePointSet, uint32_t> set_ids_;
  CharacterNfa nfa_;
};

// The texts of `nfa` with min to max characters: pairs of a state and a number of characters. Without a maximum the
// number stops counting at the minimum.
Expected<CharacterNfa> with_length(const CharacterNfa& nfa, uint32_t min, uint32_t max, size_t max_states) {
  const bool bounded = max != GrammarBuilder::kUnbounded;
  const uint64_t last = bounded ? max : min;
  CharacterNfa result;
  result.sets = nfa.sets;
  result.num_states = 0;
  std::vector<std::vector<uint32_t>> out(nfa.num_states);
  for (uint32_t i = 0; i < nfa.edges.size(); ++i) out[nfa.edges[i].from].push_back(i);
  std::unordered_map<uint64_t, uint32_t> ids;
  std::vector<uint64_t> pairs;
  const auto id_of = [&](uint64_t state, uint64_t count) {
    const auto [found, is_new] = ids.try_emplace(state << 32 | count, result.num_states);
    if (is_new) ++result.num_states, pairs.push_back(state << 32 | count);
    return found->second;
  };
  id_of(0, 0);
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (result.edges.size() > max_states) {
      return make_error(ErrorCode::kResourceExhausted,
                        "regex: more than {} states together with the bounds of the length", max_states);
    }
    const uint32_t state = static_cast<uint32_t>(pairs[i] >> 32);
    const uint64_t count = pairs[i] & UINT32_MAX;
    for (const uint32_t e : out[state]) {
      const CharacterNfa::Edge& edge = nfa.edges[e];
      if (edge.set == CharacterNfa::kFree) {
        result.edges.push_back({static_cast<uint32_t>(i), id_of(edge.to, count)});
      } else if (count < last || !bounded) {
        result.edges.push_back({static_cast<uint32_t>(i), id_of(edge.to, std::min(count + 1, last)), edge.set});
      }
    }
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    const bool accepts =
        std::find(nfa.accepts.begin(), nfa.accepts.end(), static_cast<uint32_t>(pairs[i] >> 32)) != nfa.accepts.end();
    if (accepts && (pairs[i] & UINT32_MAX) >= min) result.accepts.push_back(static_cast<uint32_t>(i));
  }
  return result;
}

}  // namespace

Expected<Expr> regex_expression(GrammarBuilder& builder, std::string_view pattern, const RegexUse& use) {
  HADAL_ASSIGN_OR_RETURN(const RegexNode root, parse_regex(pattern));
  const size_t max_states = builder.limits().max_states;
  HADAL_ASSIGN_OR_RETURN(CharacterNfa nfa, CharacterNfaBuilder(use.search, max_states).run(root));
  if (use.min_characters > 0 || use.max_characters != GrammarBuilder::kUnbounded) {
    HADAL_ASSIGN_OR_RETURN(nfa, with_length(nfa, use.min_characters, use.max_characters, max_states));
  }
  std::vector<Expr> characters;
  for (const CodePointSet& set : nfa.sets) {
    characters.push_back(use.character ? use.character(set) : builder.code_points(set));
  }
  std::vector<GrammarBuilder::GraphEdge> edges;
  for (const CharacterNfa::Edge& edge : nfa.edges) {
    const Expr label = edge.set == CharacterNfa::kFree ? GrammarBuilder::kEmpty : characters[edge.set];
    edges.push_back({edge.from, edge.to, label});
  }
  return builder.graph(nfa.num_states, std::move(edges), nfa.accepts);
}

Expected<Grammar> compile_regex(std::string_view pattern, const GrammarLimits& limits) {
  if (pattern.size() > limits.max_source_bytes) {
    return make_error(ErrorCode::kResourceExhausted, "regex of {} bytes, at most {} accepted", pattern.size(),
                      limits.max_source_bytes);
  }
  GrammarBuilder builder(limits);
  HADAL_ASSIGN_OR_RETURN(const Expr body, regex_expression(builder, pattern));
  const GrammarBuilder::Rule root = builder.add_rule("regex");
  builder.define(root, body);
  return builder.build(root);
}

Expected<Grammar> compile_choice(std::span<const std::string> choices, const GrammarLimits& limits) {
  if (choices.empty()) return make_error(ErrorCode::kInvalidArgument, "choice: at least one string is needed");
  size_t num_bytes = 0;
  for (const std::string& choice : choices) {
    if (choice.empty()) return make_error(ErrorCode::kInvalidArgument, "choice: cannot contain an empty string");
    num_bytes += choice.size();
  }
  if (num_bytes > limits.max_source_bytes) {
    return make_error(ErrorCode::kResourceExhausted, "choice: {} bytes in all, at most {} accepted", num_bytes,
                      limits.max_source_bytes);
  }
  GrammarBuilder builder(limits);
  std::vector<Expr> alternatives;
  for (const std::string& choice : choices) alternatives.push_back(builder.literal(choice));
  const GrammarBuilder::Rule root = builder.add_rule("choice");
  builder.define(root, builder.choice(std::move(alternatives)));
  return builder.build(root);
}

}  // namespace hadal
