// Numbers within bounds as expressions of a grammar. Used by json_schema.cc.
#pragma once

#include "base/json.h"
#include "text/json_grammar.h"

namespace hadal {

// `schema`: minimum, maximum, exclusiveMinimum, exclusiveMaximum (numbers, or booleans as in draft 4) and multipleOf
// are read. Bounded numbers are written without exponent: integers with at most 18 digits, others with at most 15
// significant ones. Errors: kInvalidArgument, kUnsupported; the message names the keyword.
Expected<GrammarBuilder::Expr> bounded_integer(GrammarBuilder& builder, JsonGrammar& json, const Json& schema);
Expected<GrammarBuilder::Expr> bounded_number(GrammarBuilder& builder, JsonGrammar& json, const Json& schema);

}  // namespace hadal
