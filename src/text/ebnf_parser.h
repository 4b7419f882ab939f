// What the two notations of grammars have in common: rules by name, and direct left recursion written as a loop.
// Included by ebnf_*.cc only.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar_builder.h"

namespace hadal {

// Single-owner; refers to the builder and to the text.
class EbnfParser {
 public:
  using Expr = GrammarBuilder::Expr;
  using Rule = GrammarBuilder::Rule;

  EbnfParser(GrammarBuilder& builder, std::string_view text) : builder_(builder), text_(text) {}

 protected:
  static constexpr int kMaxDepth = 200;  // of brackets
  static constexpr uint32_t kMaxRepeat = 100'000;
  // Of each alternative, its parts.
  using Alternatives = std::vector<std::vector<Expr>>;

  bool at_end() const { return pos_ == text_.size(); }
  char next() const { return at_end() ? '\0' : text_[pos_]; }
  bool next_is(std::string_view what) const { return text_.substr(pos_).starts_with(what); }
  bool take(std::string_view what) {
    if (!next_is(what)) return false;
    pos_ += what.size();
    return true;
  }
  // Requires !at_end() and valid UTF-8.
  char32_t take_character();
  tl::unexpected<Error> invalid(std::string_view what) const;
  tl::unexpected<Error> unsupported(std::string_view what) const;

  // Behind the opening quote, up to and including the closing one. Escapes of C, \u and \U.
  Expected<std::string> take_string(char quote);
  Expected<char32_t> take_escape();
  Expected<char32_t> take_hex(size_t num_digits);
  Expected<uint32_t> take_number();

  // Takes one '*', '+' or '?' and repeats the part by it; false when there is none.
  bool take_repeat_sign(Expr& part);

  Rule rule(const std::string& name);
  bool is_defined(Rule rule) const { return builder_.rules()[rule].body.has_value(); }
  // A rule that begins with itself becomes its other alternatives, followed by any number of what came behind.
  void define(Rule rule, const Alternatives& alternatives);
  Expr choice_of(const Alternatives& alternatives);

  GrammarBuilder& builder_;
  const std::string_view text_;
  size_t pos_ = 0;
  std::map<std::string, Rule, std::less<>> rules_;
};

// The whole text is the rule `root`. Errors: see compile_ebnf.
Expected<GrammarBuilder::Rule> parse_gbnf(GrammarBuilder& builder, std::string_view text);
// The whole text is the rule `start`.
Expected<GrammarBuilder::Rule> parse_lark(GrammarBuilder& builder, std::string_view text);

}  // namespace hadal
