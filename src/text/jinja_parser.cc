#include "text/jinja_parser.h"

#include <algorithm>

#include "text/jinja_expr_parser.h"
#include "text/jinja_lexer.h"

namespace hadal::jinja {
namespace {

constexpr int kMaxBlockDepth = 60;
constexpr std::string_view kUnsupportedTags[] = {"block", "call",    "extends", "filter",     "from", "import",
                                                 "do",    "include", "trans",   "autoescape", "with", "debug"};

class StatementParser {
 public:
  StatementParser(TokenStream& tokens, Template& out) : tokens_(tokens), expressions_(tokens, out), out_(out) {}

  Status run() {
    HADAL_ASSIGN_OR_RETURN(out_.body, body({}));
    return {};
  }

 private:
  using Ends = std::vector<std::string_view>;

  // Statements until a tag named in `ends` (whose name is then the next token) or, without ends, the end of the source.
  Expected<Body> body(const Ends& ends) {
    if (++depth_ > kMaxBlockDepth) return tokens_.error("tags nested deeper than {} levels", kMaxBlockDepth);
    Body statements;
    while (tokens_.peek().kind != TokenKind::kEnd) {
      const Token token = tokens_.next();
      if (token.kind == TokenKind::kData) {
        statements.push_back({.kind = Stmt::Kind::kText, .line = token.line, .text = token.text});
      } else if (token.kind == TokenKind::kVariableBegin) {
        HADAL_ASSIGN_OR_RETURN(Stmt stmt, output(token.line));
        statements.push_back(std::move(stmt));
      } else {
        if (std::find(ends.begin(), ends.end(), tokens_.peek().text) != ends.end()) {
          --depth_;
          return statements;
        }
        HADAL_RETURN_IF_ERROR(tag(token.line, statements));
      }
    }
    if (!ends.empty()) return tokens_.error("the source ends before \"{}\"", ends.back());
    --depth_;
    return statements;
  }

  Expected<Stmt> output(int line) {
    Stmt stmt{.kind = Stmt::Kind::kOutput, .line = line};
    HADAL_ASSIGN_OR_RETURN(stmt.value, expressions_.tuple());
    HADAL_RETURN_IF_ERROR(tokens_.expect(TokenKind::kVariableEnd, "}}"));
    return stmt;
  }

  Status tag(int line, Body& statements) {
    HADAL_ASSIGN_OR_RETURN(const std::string name, tokens_.expect_name());
    Stmt stmt{.line = line};
    if (name == "if") {
      HADAL_RETURN_IF_ERROR(parse_if(stmt));
    } else if (name == "for") {
      HADAL_RETURN_IF_ERROR(parse_for(stmt));
    } else if (name == "set") {
      HADAL_RETURN_IF_ERROR(parse_set(stmt));
    } else if (name == "macro") {
      HADAL_RETURN_IF_ERROR(parse_macro(stmt));
    } else if (name == "break" || name == "continue") {
      if (num_loops_ == 0) return tokens_.error("\"{}\" outside of a for", name);
      stmt.kind = name == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue;
      HADAL_RETURN_IF_ERROR(end_tag());
    } else if (name == "generation") {
      // Marks the assistant's text for training; the content is rendered as if the tag were not there.
      HADAL_RETURN_IF_ERROR(end_tag());
      HADAL_ASSIGN_OR_RETURN(Body inner, block_until("endgeneration"));
      std::move(inner.begin(), inner.end(), std::back_inserter(statements));
      return {};
    } else if (std::find(std::begin(kUnsupportedTags), std::end(kUnsupportedTags), name) !=
               std::end(kUnsupportedTags)) {
      return tokens_.error("the tag \"{}\" is not supported", name);
    } else {
      return tokens_.error("unknown tag \"{}\"", name);
    }
    statements.push_back(std::move(stmt));
    return {};
  }

  Status end_tag() { return tokens_.expect(TokenKind::kBlockEnd, "%}"); }

  // A body, its end tag consumed.
  Expected<Body> block_until(std::string_view end) {
    HADAL_ASSIGN_OR_RETURN(Body statements, body({end}));
    tokens_.next();
    HADAL_RETURN_IF_ERROR(end_tag());
    return statements;
  }

  // After "if" or "elif", up to and with the endif tag. Chains of elif are a loop, not a recursion.
  Status parse_if(Stmt& first) {
    Stmt* stmt = &first;
    int num_branches = 0;
    while (true) {
      stmt->kind = Stmt::Kind::kIf;
      if (++num_branches > kMaxBlockDepth) return tokens_.error("more than {} branches", kMaxBlockDepth);
      HADAL_ASSIGN_OR_RETURN(stmt->value, expressions_.tuple(ExpressionParser::Conditionals::kNo));
      HADAL_RETURN_IF_ERROR(end_tag());
      HADAL_ASSIGN_OR_RETURN(stmt->body, body({"elif", "else", "endif"}));
      const Token end = tokens_.next();
      if (end.text == "elif") {
        stmt->else_body.push_back({.line = end.line});
        stmt = &stmt->else_body.back();
        continue;
      }
      if (end.text == "else") {
        HADAL_RETURN_IF_ERROR(end_tag());
        HADAL_ASSIGN_OR_RETURN(stmt->else_body, block_until("endif"));
        return {};
      }
      return end_tag();
    }
  }

  Status parse_for(Stmt& stmt) {
    stmt.kind = Stmt::Kind::kFor;
    HADAL_RETURN_IF_ERROR(targets(stmt.targets));
    if (!tokens_.skip_name("in")) return tokens_.error("expected \"in\"");
    HADAL_ASSIGN_OR_RETURN(stmt.value, expressions_.tuple(ExpressionParser::Conditionals::kNo));
    if (tokens_.skip_name("if")) {
      HADAL_ASSIGN_OR_RETURN(stmt.condition, expressions_.expression());
    }
    if (tokens_.skip_name("recursive")) return tokens_.error("recursive loops are not supported");
    HADAL_RETURN_IF_ERROR(end_tag());
    ++num_loops_;
    HADAL_ASSIGN_OR_RETURN(stmt.body, body({"else", "endfor"}));
    --num_loops_;
    const Token end = tokens_.next();
    HADAL_RETURN_IF_ERROR(end_tag());
    if (end.text == "else") {
      HADAL_ASSIGN_OR_RETURN(stmt.else_body, block_until("endfor"));
    }
    return {};
  }

  // a | a, b | (a, b)
  Status targets(std::vector<std::string>& names) {
    const bool in_parentheses = tokens_.skip_operator("(");
    do {
      if (tokens_.peek().text == "in" || tokens_.peek().kind != TokenKind::kName) break;
      HADAL_ASSIGN_OR_RETURN(std::string name, tokens_.expect_name());
      names.push_back(std::move(name));
    } while (tokens_.skip_operator(","));
    if (names.empty()) return tokens_.error("expected a name to assign to");
    if (in_parentheses && !tokens_.skip_operator(")")) return tokens_.error("expected \")\"");
    return {};
  }

  Status parse_set(Stmt& stmt) {
    HADAL_RETURN_IF_ERROR(targets(stmt.targets));
    stmt.kind = Stmt::Kind::kSet;
    if (tokens_.skip_operator(".")) {
      if (stmt.targets.size() != 1) return tokens_.error("cannot assign to a list of attributes");
      stmt.kind = Stmt::Kind::kSetField;
      out_.names.insert(stmt.targets[0]);
      HADAL_ASSIGN_OR_RETURN(stmt.text, tokens_.expect_name());
    }
    if (tokens_.skip_operator("=")) {
      HADAL_ASSIGN_OR_RETURN(stmt.value, expressions_.tuple());
      return end_tag();
    }
    if (stmt.kind == Stmt::Kind::kSetField || stmt.targets.size() != 1) return tokens_.error("expected \"=\"");
    if (tokens_.peek().text == "|") return tokens_.error("a set block with a filter is not supported");
    stmt.kind = Stmt::Kind::kSetBlock;
    HADAL_RETURN_IF_ERROR(end_tag());
    HADAL_ASSIGN_OR_RETURN(stmt.body, block_until("endset"));
    return {};
  }

  Status parse_macro(Stmt& stmt) {
    // Elsewhere it would see the variables of the place where it stands.
    if (num_loops_ > 0 || in_macro_) return tokens_.error("a macro inside a for or a macro is not supported");
    stmt.kind = Stmt::Kind::kMacro;
    stmt.macro = std::make_unique<MacroNode>();
    HADAL_ASSIGN_OR_RETURN(stmt.macro->name, tokens_.expect_name());
    if (!tokens_.skip_operator("(")) return tokens_.error("expected \"(\"");
    while (!tokens_.skip_operator(")")) {
      auto& parameters = stmt.macro->parameters;
      if (!parameters.empty() && !tokens_.skip_operator(",")) return tokens_.error("expected \",\" or \")\"");
      MacroNode::Parameter parameter;
      HADAL_ASSIGN_OR_RETURN(parameter.name, tokens_.expect_name());
      if (tokens_.skip_operator("=")) {
        HADAL_ASSIGN_OR_RETURN(parameter.default_value, expressions_.expression());
      } else if (!parameters.empty() && parameters.back().default_value) {
        return tokens_.error("parameter \"{}\" needs a default, as the one before has one", parameter.name);
      }
      parameters.push_back(std::move(parameter));
    }
    HADAL_RETURN_IF_ERROR(end_tag());
    in_macro_ = true;
    HADAL_ASSIGN_OR_RETURN(stmt.macro->body, block_until("endmacro"));
    in_macro_ = false;
    return {};
  }

  TokenStream& tokens_;
  ExpressionParser expressions_;
  Template& out_;
  int depth_ = 0;
  int num_loops_ = 0;
  bool in_macro_ = false;
};

}  // namespace

Expected<std::unique_ptr<Template>> parse_template(std::string source) {
  auto parsed = std::make_unique<Template>();
  parsed->source = std::move(source);
  HADAL_ASSIGN_OR_RETURN(std::vector<Token> list, tokenize(parsed->source));
  TokenStream tokens(std::move(list));
  HADAL_RETURN_IF_ERROR(StatementParser(tokens, *parsed).run());
  for (const char* name : {"caller", "varargs", "kwargs"}) {
    if (parsed->names.contains(name)) {
      return make_error(ErrorCode::kInvalidArgument, "the macro variable \"{}\" is not supported", name);
    }
  }
  return parsed;
}

}  // namespace hadal::jinja
