// Joins the automata of a grammar's rules. Used by grammar_builder.cc.
#pragma once

#include <string>
#include <vector>

#include "text/grammar_builder.h"

namespace hadal {

// See GrammarBuilder::build.
Expected<Grammar> compile_grammar(const GrammarBuilder& builder, GrammarBuilder::Rule root,
                                  std::vector<std::string> markers);

}  // namespace hadal
