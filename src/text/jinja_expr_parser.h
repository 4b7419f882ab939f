// Expressions: precedence climbing as in Jinja's own grammar. Used by jinja_parser.cc only.
#pragma once

#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace hadal::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(pos_ + ahead, tokens_.size() - 1)]; }
  Token next() {
    Token token = peek();
    if (pos_ + 1 < tokens_.size()) ++pos_;
    return token;
  }
  bool is_operator(std::string_view op, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kOperator && peek(ahead).text == op;
  }
  bool is_name(std::string_view name, size_t ahead = 0) const {
    return peek(ahead).kind == TokenKind::kName && peek(ahead).text == name;
  }
  bool skip_operator(std::string_view op) { return is_operator(op) && (next(), true); }
  bool skip_name(std::string_view name) { return is_name(name) && (next(), true); }
  Expected<std::string> expect_name();
  Status expect(TokenKind kind, std::string_view spelling);

  template <typename... Args>
  tl::unexpected<Error> error(fmt::format_string<Args...> format, Args&&... args) const {
    return make_error(ErrorCode::kInvalidArgument, "line {}: {}", peek().line,
                      fmt::format(format, std::forward<Args>(args)...));
  }
  // "expected X, found Y".
  tl::unexpected<Error> unexpected(std::string_view wanted) const;

 private:
  std::vector<Token> tokens_;  // ends with kEnd
  size_t pos_ = 0;
};

class ExpressionParser {
 public:
  enum class Conditionals { kYes, kNo };  // may "a if b else c" appear without parentheses?

  ExpressionParser(TokenStream& tokens, Template& out) : tokens_(tokens), out_(out) {}

  Expected<ExprPtr> expression() { return conditional(); }
  // One expression, or several with commas between.
  Expected<ExprPtr> tuple(Conditionals conditionals = Conditionals::kYes);

 private:
  Expected<ExprPtr> conditional();
  Expected<ExprPtr> logical_or();
  Expected<ExprPtr> logical_and();
  Expected<ExprPtr> logical_not();
  Expected<ExprPtr> comparison();
  Expected<ExprPtr> arithmetic(size_t level);
  Expected<ExprPtr> concat();
  Expected<ExprPtr> unary(bool with_filters);
  Expected<ExprPtr> primary();
  Expected<ExprPtr> name();
  Expected<ExprPtr> string_literal();
  Expected<ExprPtr> parenthesized();
  Expected<ExprPtr> list_literal();
  Expected<ExprPtr> dict_literal();
  Expected<ExprPtr> postfix(ExprPtr expr);
  Expected<ExprPtr> filters_and_tests(ExprPtr expr);
  Expected<ExprPtr> filter(ExprPtr input);
  Expected<ExprPtr> test(ExprPtr input);
  Expected<ExprPtr> subscript(ExprPtr object);
  Expected<ExprPtr> attribute(ExprPtr object);
  Status call_arguments(Expr& call);
  std::string comparison_operator();

  ExprPtr make(Expr::Kind kind, std::string text = "") const;
  // Adds an operand (which may be null) and bounds the tree's depth.
  Status adopt(Expr& parent, ExprPtr child) const;
  // A binary node over both.
  Expected<ExprPtr> join(Expr::Kind kind, std::string text, ExprPtr left, ExprPtr right) const;

  TokenStream& tokens_;
  Template& out_;
  int depth_ = 0;  // of the recursion
};

}  // namespace hadal::jinja
