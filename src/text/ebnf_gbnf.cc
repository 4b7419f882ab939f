// GBNF, the notation of llama.cpp and xgrammar: name ::= alternatives.

#include "text/ebnf_parser.h"

namespace hadal {
namespace {

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
}

class GbnfParser : public EbnfParser {
 public:
  using EbnfParser::EbnfParser;

  Expected<Rule> run() {
    const Rule root = rule("root");
    skip_blanks();
    while (!at_end()) {
      HADAL_RETURN_IF_ERROR(parse_rule());
    }
    if (!is_defined(root)) return invalid("no rule \"root\"");
    return root;
  }

 private:
  void skip_blanks() {
    while (!at_end()) {
      if (next() == '#') {
        while (!at_end() && next() != '\n') ++pos_;
      } else if (next() == ' ' || next() == '\t' || next() == '\r' || next() == '\n') {
        ++pos_;
      } else {
        return;
      }
    }
  }

  std::string take_name() {
    const size_t begin = pos_;
    while (!at_end() && is_name_character(next()) && !(next() == '.' && pos_ == begin)) ++pos_;
    return std::string(text_.substr(begin, pos_ - begin));
  }

  // Whether a new rule begins here.
  bool at_rule() {
    const size_t begin = pos_;
    const bool has_name = !take_name().empty();
    skip_blanks();
    const bool result = has_name && next_is("::=");
    pos_ = begin;
    return result;
  }

  Status parse_rule() {
    const std::string name = take_name();
    skip_blanks();
    if (name.empty() || !take("::=")) return invalid("\"name ::= ...\" expected");
    const Rule target = rule(name);
    if (is_defined(target)) return invalid(fmt::format("a second rule \"{}\"", name));
    HADAL_ASSIGN_OR_RETURN(const Alternatives alternatives, parse_alternatives(0));
    define(target, alternatives);
    if (!at_end() && !at_rule()) return invalid(fmt::format("'{}' is not expected here", text_.substr(pos_, 1)));
    return {};
  }

  Expected<Alternatives> parse_alternatives(int depth) {
    if (depth > kMaxDepth) return unsupported(fmt::format("brackets nested deeper than {} levels are", kMaxDepth));
    Alternatives alternatives;
    do {
      alternatives.emplace_back();
      for (skip_blanks(); !at_end() && next() != '|' && next() != ')' && !at_rule(); skip_blanks()) {
        HADAL_ASSIGN_OR_RETURN(const Expr part, parse_part(depth));
        alternatives.back().push_back(part);
      }
    } while (take("|"));
    return alternatives;
  }

  Expected<Expr> parse_part(int depth) {
    HADAL_ASSIGN_OR_RETURN(Expr part, parse_atom(depth));
    for (;;) {
      if (take_repeat_sign(part)) continue;
      if (!take("{")) return part;
      HADAL_ASSIGN_OR_RETURN(part, parse_braces(part));
    }
  }

  Expected<Expr> parse_braces(Expr part) {
    skip_blanks();
    HADAL_ASSIGN_OR_RETURN(const uint32_t min, take_number());
    uint32_t max = min;
    skip_blanks();
    if (take(",")) {
      skip_blanks();
      max = GrammarBuilder::kUnbounded;
      if (next() != '}') {
        HADAL_ASSIGN_OR_RETURN(max, take_number());
      }
      skip_blanks();
    }
    if (!take("}")) return invalid("'}' expected");
    if (min > max) return invalid("a repetition whose minimum is above its maximum");
    return builder_.repeat(part, min, max);
  }

  Expected<Expr> parse_atom(int depth) {
    if (take("\"")) {
      HADAL_ASSIGN_OR_RETURN(const std::string text, take_string('"'));
      return builder_.literal(text);
    }
    if (take("[")) return parse_class();
    if (take("(")) {
      if (next() == '=') return unsupported("look-ahead \"(=\" is");
      HADAL_ASSIGN_OR_RETURN(const Alternatives alternatives, parse_alternatives(depth + 1));
      if (!take(")")) return invalid("')' expected");
      return choice_of(alternatives);
    }
    if (take(".")) return builder_.code_points(CodePointSet::all());
    const std::string name = take_name();
    if (name.empty()) return invalid(fmt::format("'{}' is not expected here", text_.substr(pos_, 1)));
    if (next() == '(') return unsupported(fmt::format("the macro \"{}(\" is", name));
    return builder_.call(rule(name));
  }

  Expected<Expr> parse_class() {
    const bool is_negated = take("^");
    CodePointSet set;
    while (!take("]")) {
      HADAL_ASSIGN_OR_RETURN(const char32_t low, take_class_character());
      char32_t high = low;
      if (next() == '-' && pos_ + 1 < text_.size() && text_[pos_ + 1] != ']') {
        ++pos_;
        HADAL_ASSIGN_OR_RETURN(high, take_class_character());
      }
      if (low > high) return invalid("a range whose first character comes after its last");
      set.add(low, high);
    }
    return builder_.code_points(is_negated ? set.complement() : set);
  }

  Expected<char32_t> take_class_character() {
    if (at_end() || next() == '\n') return invalid("'[' without ']'");
    if (take("\\")) return take_escape();
    return take_character();
  }
};

}  // namespace

Expected<GrammarBuilder::Rule> parse_gbnf(GrammarBuilder& builder, std::string_view text) {
  return GbnfParser(builder, text).run();
}

}  // namespace hadal
