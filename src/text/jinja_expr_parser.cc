#include "text/jinja_expr_parser.h"

#include <algorithm>

#include "text/jinja_filters.h"

namespace hadal::jinja {
namespace {

// Evaluation and destruction recurse as deep as the tree.
constexpr int kMaxDepth = 150;

const char* describe(TokenKind kind) {
  switch (kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kVariableBegin:
      return "{{";
    case TokenKind::kVariableEnd:
      return "}}";
    case TokenKind::kBlockBegin:
      return "{%";
    case TokenKind::kBlockEnd:
      return "%}";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the source";
    default:
      return nullptr;  // the token's own text says it
  }
}

}  // namespace

Expected<std::string> TokenStream::expect_name() {
  if (peek().kind != TokenKind::kName) return unexpected("a name");
  return next().text;
}

Status TokenStream::expect(TokenKind kind, std::string_view spelling) {
  if (peek().kind != kind) return unexpected(spelling);
  next();
  return {};
}

tl::unexpected<Error> TokenStream::unexpected(std::string_view wanted) const {
  const char* found = describe(peek().kind);
  return error("expected {}, found {}", wanted, found ? std::string(found) : fmt::format("\"{}\"", peek().text));
}

ExprPtr ExpressionParser::make(Expr::Kind kind, std::string text) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = tokens_.peek().line;
  expr->text = std::move(text);
  return expr;
}

Status ExpressionParser::adopt(Expr& parent, ExprPtr child) const {
  if (child) parent.depth = std::max(parent.depth, child->depth + 1);
  parent.operands.push_back(std::move(child));
  if (parent.depth > kMaxDepth) return tokens_.error("expression of more than {} levels", kMaxDepth);
  return {};
}

Expected<ExprPtr> ExpressionParser::join(Expr::Kind kind, std::string text, ExprPtr left, ExprPtr right) const {
  ExprPtr expr = make(kind, std::move(text));
  HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(left)));
  HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(right)));
  return expr;
}

Expected<ExprPtr> ExpressionParser::tuple(Conditionals conditionals) {
  const auto element = [&] { return conditionals == Conditionals::kYes ? conditional() : logical_or(); };
  HADAL_ASSIGN_OR_RETURN(ExprPtr first, element());
  if (!tokens_.is_operator(",")) return first;
  ExprPtr list = make(Expr::Kind::kTuple);
  HADAL_RETURN_IF_ERROR(adopt(*list, std::move(first)));
  while (tokens_.skip_operator(",")) {
    const TokenKind kind = tokens_.peek().kind;
    if (kind == TokenKind::kVariableEnd || kind == TokenKind::kBlockEnd || tokens_.is_operator(")")) break;
    HADAL_ASSIGN_OR_RETURN(ExprPtr item, element());
    HADAL_RETURN_IF_ERROR(adopt(*list, std::move(item)));
  }
  return list;
}

Expected<ExprPtr> ExpressionParser::conditional() {
  if (++depth_ > kMaxDepth) return tokens_.error("expression nested deeper than {} levels", kMaxDepth);
  HADAL_ASSIGN_OR_RETURN(ExprPtr expr, logical_or());
  while (tokens_.skip_name("if")) {
    HADAL_ASSIGN_OR_RETURN(ExprPtr condition, logical_or());
    ExprPtr otherwise;
    if (tokens_.skip_name("else")) {
      HADAL_ASSIGN_OR_RETURN(otherwise, conditional());
    }
    HADAL_ASSIGN_OR_RETURN(expr, join(Expr::Kind::kConditional, "", std::move(expr), std::move(condition)));
    HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(otherwise)));
  }
  --depth_;
  return expr;
}

Expected<ExprPtr> ExpressionParser::logical_or() {
  HADAL_ASSIGN_OR_RETURN(ExprPtr left, logical_and());
  while (tokens_.skip_name("or")) {
    HADAL_ASSIGN_OR_RETURN(ExprPtr right, logical_and());
    HADAL_ASSIGN_OR_RETURN(left, join(Expr::Kind::kOr, "", std::move(left), std::move(right)));
  }
  return left;
}

Expected<ExprPtr> ExpressionParser::logical_and() {
  HADAL_ASSIGN_OR_RETURN(ExprPtr left, logical_not());
  while (tokens_.skip_name("and")) {
    HADAL_ASSIGN_OR_RETURN(ExprPtr right, logical_not());
    HADAL_ASSIGN_OR_RETURN(left, join(Expr::Kind::kAnd, "", std::move(left), std::move(right)));
  }
  return left;
}

Expected<ExprPtr> ExpressionParser::logical_not() {
  if (!tokens_.skip_name("not")) return comparison();
  if (++depth_ > kMaxDepth) return tokens_.error("expression nested deeper than {} levels", kMaxDepth);
  ExprPtr expr = make(Expr::Kind::kNot);
  HADAL_ASSIGN_OR_RETURN(ExprPtr operand, logical_not());
  --depth_;
  HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(operand)));
  return expr;
}

// The comparison operator that is next, consumed; "" if none is.
std::string ExpressionParser::comparison_operator() {
  for (const std::string_view op : {"==", "!=", "<", "<=", ">", ">="}) {
    if (tokens_.skip_operator(op)) return std::string(op);
  }
  if (tokens_.skip_name("in")) return "in";
  if (tokens_.is_name("not") && tokens_.is_name("in", 1)) {
    tokens_.next();
    tokens_.next();
    return "not in";
  }
  return "";
}

Expected<ExprPtr> ExpressionParser::comparison() {
  HADAL_ASSIGN_OR_RETURN(ExprPtr left, arithmetic(0));
  std::string op = comparison_operator();
  if (op.empty()) return left;
  ExprPtr chain = make(Expr::Kind::kChain);
  HADAL_RETURN_IF_ERROR(adopt(*chain, std::move(left)));
  for (; !op.empty(); op = comparison_operator()) {
    HADAL_ASSIGN_OR_RETURN(ExprPtr right, arithmetic(0));
    HADAL_RETURN_IF_ERROR(adopt(*chain, std::move(right)));
    chain->comparisons.push_back(std::move(op));
  }
  return chain;
}

// Left-associative levels, loosest first. "~" lies between the first and the second.
Expected<ExprPtr> ExpressionParser::arithmetic(size_t level) {
  static const std::vector<std::vector<std::string_view>> levels = {{"+", "-"}, {"*", "/", "//", "%"}, {"**"}};
  if (level == levels.size()) return unary(true);
  const auto operand = [&] { return level == 0 ? concat() : arithmetic(level + 1); };
  HADAL_ASSIGN_OR_RETURN(ExprPtr left, operand());
  while (true) {
    const auto& operators = levels[level];
    const auto op = std::find_if(operators.begin(), operators.end(),
                                 [&](std::string_view candidate) { return tokens_.is_operator(candidate); });
    if (op == operators.end()) return left;
    tokens_.next();
    HADAL_ASSIGN_OR_RETURN(ExprPtr right, operand());
    HADAL_ASSIGN_OR_RETURN(left, join(Expr::Kind::kArithmetic, std::string(*op), std::move(left), std::move(right)));
  }
}

Expected<ExprPtr> ExpressionParser::concat() {
  HADAL_ASSIGN_OR_RETURN(ExprPtr first, arithmetic(1));
  if (!tokens_.is_operator("~")) return first;
  ExprPtr expr = make(Expr::Kind::kConcat);
  HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(first)));
  while (tokens_.skip_operator("~")) {
    HADAL_ASSIGN_OR_RETURN(ExprPtr next, arithmetic(1));
    HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(next)));
  }
  return expr;
}

Expected<ExprPtr> ExpressionParser::unary(bool with_filters) {
  ExprPtr expr;
  if (tokens_.is_operator("-") || tokens_.is_operator("+")) {
    if (++depth_ > kMaxDepth) return tokens_.error("expression nested deeper than {} levels", kMaxDepth);
    expr = make(tokens_.is_operator("-") ? Expr::Kind::kNegate : Expr::Kind::kPlus);
    tokens_.next();
    HADAL_ASSIGN_OR_RETURN(ExprPtr operand, unary(false));
    --depth_;
    HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(operand)));
  } else {
    HADAL_ASSIGN_OR_RETURN(expr, primary());
  }
  HADAL_ASSIGN_OR_RETURN(expr, postfix(std::move(expr)));
  if (!with_filters) return expr;
  return filters_and_tests(std::move(expr));
}

Expected<ExprPtr> ExpressionParser::primary() {
  switch (tokens_.peek().kind) {
    case TokenKind::kName:
      return name();
    case TokenKind::kString:
      return string_literal();
    case TokenKind::kInteger:
    case TokenKind::kFloat: {
      ExprPtr expr = make(Expr::Kind::kConstant);
      expr->value = tokens_.next().number;
      return expr;
    }
    default:
      if (tokens_.is_operator("(")) return parenthesized();
      if (tokens_.is_operator("[")) return list_literal();
      if (tokens_.is_operator("{")) return dict_literal();
      return tokens_.unexpected("an expression");
  }
}

Expected<ExprPtr> ExpressionParser::name() {
  ExprPtr expr = make(Expr::Kind::kConstant);
  std::string text = tokens_.next().text;
  if (text == "true" || text == "True") {
    expr->value = Value(true);
  } else if (text == "false" || text == "False") {
    expr->value = Value(false);
  } else if (text != "none" && text != "None") {
    out_.names.insert(text);
    expr->kind = Expr::Kind::kName;
    expr->text = std::move(text);
  }
  return expr;
}

Expected<ExprPtr> ExpressionParser::string_literal() {
  ExprPtr expr = make(Expr::Kind::kConstant);
  std::string text;
  while (tokens_.peek().kind == TokenKind::kString) text += tokens_.next().text;  // adjacent literals are one
  expr->value = Value(std::move(text));
  return expr;
}

Expected<ExprPtr> ExpressionParser::parenthesized() {
  tokens_.next();
  if (tokens_.is_operator(")")) {
    ExprPtr empty = make(Expr::Kind::kTuple);
    tokens_.next();
    return empty;
  }
  HADAL_ASSIGN_OR_RETURN(ExprPtr expr, tuple());
  if (!tokens_.skip_operator(")")) return tokens_.unexpected("\")\"");
  return expr;
}

Expected<ExprPtr> ExpressionParser::list_literal() {
  ExprPtr list = make(Expr::Kind::kList);
  tokens_.next();
  while (!tokens_.skip_operator("]")) {
    if (!list->operands.empty() && !tokens_.skip_operator(",")) return tokens_.unexpected("\",\" or \"]\"");
    if (!list->operands.empty() && tokens_.skip_operator("]")) break;
    HADAL_ASSIGN_OR_RETURN(ExprPtr item, conditional());
    HADAL_RETURN_IF_ERROR(adopt(*list, std::move(item)));
  }
  return list;
}

Expected<ExprPtr> ExpressionParser::dict_literal() {
  ExprPtr dict = make(Expr::Kind::kDict);
  tokens_.next();
  while (!tokens_.skip_operator("}")) {
    if (!dict->operands.empty() && !tokens_.skip_operator(",")) return tokens_.unexpected("\",\" or \"}\"");
    if (!dict->operands.empty() && tokens_.skip_operator("}")) break;
    HADAL_ASSIGN_OR_RETURN(ExprPtr key, conditional());
    HADAL_RETURN_IF_ERROR(adopt(*dict, std::move(key)));
    if (!tokens_.skip_operator(":")) return tokens_.unexpected("\":\"");
    HADAL_ASSIGN_OR_RETURN(ExprPtr value, conditional());
    HADAL_RETURN_IF_ERROR(adopt(*dict, std::move(value)));
  }
  return dict;
}

Expected<ExprPtr> ExpressionParser::postfix(ExprPtr expr) {
  while (true) {
    if (tokens_.is_operator(".")) {
      HADAL_ASSIGN_OR_RETURN(expr, attribute(std::move(expr)));
    } else if (tokens_.is_operator("[")) {
      HADAL_ASSIGN_OR_RETURN(expr, subscript(std::move(expr)));
    } else if (tokens_.is_operator("(")) {
      ExprPtr call = make(Expr::Kind::kCall);
      HADAL_RETURN_IF_ERROR(adopt(*call, std::move(expr)));
      HADAL_RETURN_IF_ERROR(call_arguments(*call));
      expr = std::move(call);
    } else {
      return expr;
    }
  }
}

Expected<ExprPtr> ExpressionParser::filters_and_tests(ExprPtr expr) {
  while (true) {
    if (tokens_.is_operator("|")) {
      HADAL_ASSIGN_OR_RETURN(expr, filter(std::move(expr)));
    } else if (tokens_.is_name("is")) {
      HADAL_ASSIGN_OR_RETURN(expr, test(std::move(expr)));
    } else if (tokens_.is_operator("(")) {
      HADAL_ASSIGN_OR_RETURN(expr, postfix(std::move(expr)));
    } else {
      return expr;
    }
  }
}

Expected<ExprPtr> ExpressionParser::filter(ExprPtr input) {
  tokens_.next();
  ExprPtr expr = make(Expr::Kind::kFilter);
  HADAL_ASSIGN_OR_RETURN(expr->text, tokens_.expect_name());
  expr->filter = find_filter(expr->text);
  if (!expr->filter) return tokens_.error("no filter named \"{}\"{}", expr->text, filter_suggestion(expr->text));
  HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(input)));
  if (tokens_.is_operator("(")) HADAL_RETURN_IF_ERROR(call_arguments(*expr));
  return expr;
}

Expected<ExprPtr> ExpressionParser::test(ExprPtr input) {
  tokens_.next();
  const bool is_negated = tokens_.skip_name("not");
  ExprPtr expr = make(Expr::Kind::kTest);
  HADAL_ASSIGN_OR_RETURN(expr->text, tokens_.expect_name());
  expr->test = find_test(expr->text);
  if (!expr->test) return tokens_.error("no test named \"{}\"{}", expr->text, test_suggestion(expr->text));
  HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(input)));
  if (expr->test->num_arguments > 0) {
    if (tokens_.is_operator("(")) {
      HADAL_RETURN_IF_ERROR(call_arguments(*expr));
    } else {
      HADAL_ASSIGN_OR_RETURN(ExprPtr argument, primary());
      HADAL_ASSIGN_OR_RETURN(argument, postfix(std::move(argument)));
      HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(argument)));
    }
  } else if (tokens_.is_operator("(") && tokens_.is_operator(")", 1)) {
    tokens_.next();
    tokens_.next();
  }
  if (expr->operands.size() != 1 + expr->test->num_arguments || !expr->keywords.empty()) {
    return tokens_.error("test \"{}\" takes {} arguments", expr->text, expr->test->num_arguments);
  }
  if (!is_negated) return expr;
  ExprPtr negated = make(Expr::Kind::kNot);
  HADAL_RETURN_IF_ERROR(adopt(*negated, std::move(expr)));
  return negated;
}

Expected<ExprPtr> ExpressionParser::attribute(ExprPtr object) {
  tokens_.next();
  if (tokens_.peek().kind == TokenKind::kInteger) {
    ExprPtr index = make(Expr::Kind::kConstant);
    index->value = tokens_.next().number;
    return join(Expr::Kind::kItem, "", std::move(object), std::move(index));
  }
  ExprPtr expr = make(Expr::Kind::kAttribute);
  HADAL_ASSIGN_OR_RETURN(expr->text, tokens_.expect_name());
  HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(object)));
  return expr;
}

// [index] or [start:stop:step], every part of which may be missing.
Expected<ExprPtr> ExpressionParser::subscript(ExprPtr object) {
  tokens_.next();
  ExprPtr parts[3];
  size_t num_colons = 0;
  while (!tokens_.is_operator("]")) {
    if (tokens_.skip_operator(":")) {
      if (++num_colons > 2) return tokens_.error("a slice has at most three parts");
    } else if (!parts[num_colons]) {
      HADAL_ASSIGN_OR_RETURN(parts[num_colons], conditional());
    } else {
      return tokens_.unexpected("\"]\"");
    }
  }
  if (num_colons == 0 && !parts[0]) return tokens_.unexpected("an index");
  if (num_colons == 0) {
    tokens_.next();
    return join(Expr::Kind::kItem, "", std::move(object), std::move(parts[0]));
  }
  ExprPtr expr = make(Expr::Kind::kSlice);
  tokens_.next();
  HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(object)));
  for (ExprPtr& part : parts) HADAL_RETURN_IF_ERROR(adopt(*expr, std::move(part)));
  return expr;
}

// (a, b, name=c); the callee is operand 0 already.
Status ExpressionParser::call_arguments(Expr& call) {
  tokens_.next();
  bool is_first = true;
  while (!tokens_.skip_operator(")")) {
    if (!is_first && !tokens_.skip_operator(",")) return tokens_.unexpected("\",\" or \")\"");
    if (!is_first && tokens_.skip_operator(")")) break;
    is_first = false;
    if (tokens_.is_operator("*") || tokens_.is_operator("**")) {
      return tokens_.error("unpacking of arguments is not supported");
    }
    const bool is_keyword = tokens_.peek().kind == TokenKind::kName && tokens_.is_operator("=", 1);
    std::string keyword;
    if (is_keyword) {
      keyword = tokens_.next().text;
      tokens_.next();
    } else if (!call.keywords.empty()) {
      return tokens_.error("a positional argument after keywords");
    }
    HADAL_ASSIGN_OR_RETURN(ExprPtr value, conditional());
    if (is_keyword) {
      call.depth = std::max(call.depth, value->depth + 1);
      call.keywords.emplace_back(std::move(keyword), std::move(value));
    } else {
      HADAL_RETURN_IF_ERROR(adopt(call, std::move(value)));
    }
  }
  return {};
}

}  // namespace hadal::jinja
