// The parts of JSON as expressions of a grammar: what schemas are put together from.
//
// Bounded, so that a model cannot stall in them: between the tokens of a document a blank, or a line end with up to 40
// blanks or 10 tabs; none before ',' and ':', before and behind the document; numbers of at most 18 digits before and
// behind the point, exponents of two.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "text/grammar_builder.h"

namespace hadal {

// Single-owner; refers to the builder.
class JsonGrammar {
 public:
  using Expr = GrammarBuilder::Expr;

  // Without `any_whitespace`: one blank behind ',' and ':', none elsewhere. `guard_markers`: uncounted strings spell
  // "<|" and "<\uFF5C", with which control tokens begin, otherwise: for documents inside such tokens.
  JsonGrammar(GrammarBuilder& builder, bool any_whitespace, bool guard_markers = false);

  Expr value();   // any, in any depth
  Expr object();  // any
  Expr array();   // any
  Expr string();
  Expr number();
  Expr integer();
  Expr boolean();
  Expr null() { return builder_.literal("null"); }
  // This value, as it is usually written.
  Expr literal(const Json& value);
  // {first rest...}: whitespace inside the brackets included.
  Expr object_of(Expr members) { return bracketed("{", members, "}"); }
  Expr array_of(Expr items) { return bracketed("[", items, "]"); }
  Expr comma() { return comma_; }
  Expr colon() { return colon_; }

  // One character of a string in every spelling, and one of a set in its usual spelling: as itself where JSON allows
  // that, otherwise as a short escape or \u00XX.
  Expr any_character();
  Expr character(const CodePointSet& set);
  Expr quoted(Expr characters);

 private:
  Expr bracketed(std::string_view open, Expr inside, std::string_view close);
  Expr list_of(Expr element);
  Expr character_of(const CodePointSet& unescaped);
  Expr guarded_characters();

  GrammarBuilder& builder_;
  const bool guard_markers_;
  Expr whitespace_ = 0, comma_ = 0, colon_ = 0;
  std::optional<Expr> value_, object_, array_, string_, number_, integer_, any_character_, escape_;
};

}  // namespace hadal
