// Regular expressions as expressions of a grammar. Used by the front ends.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "text/grammar_builder.h"

namespace hadal {

struct RegexUse {
  // Pattern of a schema: may match anywhere in the text, unless anchored. Otherwise the whole text matches.
  bool search = false;
  // Characters of the text, both inclusive.
  uint32_t min_characters = 0, max_characters = GrammarBuilder::kUnbounded;
  // How one character of a set is written; as itself when empty. kNothing drops the set.
  std::function<GrammarBuilder::Expr(const CodePointSet&)> character;
};

// Errors: those of parse_regex (regex_parser.h); kUnsupported for anchors inside of a pattern; kResourceExhausted.
Expected<GrammarBuilder::Expr> regex_expression(GrammarBuilder& builder, std::string_view pattern,
                                                const RegexUse& use = {});

}  // namespace hadal
