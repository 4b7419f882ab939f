// Template source to tokens, with the whitespace rules applied: trim_blocks, lstrip_blocks, '-' and '+' signs, one
// trailing newline dropped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/jinja_value.h"

namespace hadal::jinja {

enum class TokenKind {
  kData,  // text between tags
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,   // text: the value, escapes resolved
  kInteger,  // value: integer
  kFloat,    // value: float
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  Value number;  // kInteger, kFloat
  int line = 0;  // 1-based
};

// Errors: kInvalidArgument, "line 3: ...".
Expected<std::vector<Token>> tokenize(std::string_view source);

}  // namespace hadal::jinja
