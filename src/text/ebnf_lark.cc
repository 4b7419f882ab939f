// The notation of Lark: name: alternatives, TERMINALS in capitals, regexes between slashes.
#include <algorithm>
#include <optional>

#include "base/utf8.h"
#include "text/ebnf_parser.h"
#include "text/regex_grammar.h"

namespace hadal {
namespace {

// Of Lark's `common` library, as regexes.
constexpr std::pair<std::string_view, std::string_view> kCommon[] = {
    {"DIGIT", "[0-9]"},
    {"HEXDIGIT", "[0-9A-Fa-f]"},
    {"INT", "[0-9]+"},
    {"SIGNED_INT", "[+-]?[0-9]+"},
    {"DECIMAL", R"([0-9]+\.[0-9]*|\.[0-9]+)"},
    {"FLOAT", R"([0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"},
    {"SIGNED_FLOAT", R"([+-]?(?:[0-9]+[eE][+-]?[0-9]+|(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?))"},
    {"NUMBER", R"([0-9]+(?:[eE][+-]?[0-9]+)?|(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"},
    {"SIGNED_NUMBER", R"([+-]?(?:[0-9]+(?:[eE][+-]?[0-9]+)?|(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?))"},
    {"ESCAPED_STRING", R"("(?:[^"\\\n]|\\[^\n])*")"},
    {"LCASE_LETTER", "[a-z]"},
    {"UCASE_LETTER", "[A-Z]"},
    {"LETTER", "[A-Za-z]"},
    {"WORD", "[A-Za-z]+"},
    {"CNAME", "[A-Za-z_][A-Za-z0-9_]*"},
    {"WS_INLINE", R"([ \t]+)"},
    {"WS", R"([ \t\f\r\n]+)"},
    {"CR", R"(\r)"},
    {"LF", R"(\n)"},
    {"NEWLINE", R"((?:\r?\n)+)"},
};

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}
bool is_terminal_name(std::string_view name) {
  const size_t letter = name.find_first_not_of("_0123456789");
  return letter != std::string_view::npos && name[letter] >= 'A' && name[letter] <= 'Z';
}

class LarkParser : public EbnfParser {
 public:
  using EbnfParser::EbnfParser;

  Expected<Rule> run() {
    const Rule start = rule("start");
    ignored_ = builder_.add_rule("%ignore");
    for (skip_blanks(true); !at_end(); skip_blanks(true)) {
      HADAL_RETURN_IF_ERROR(next() == '%' ? parse_directive() : parse_rule());
    }
    if (!is_defined(start)) return invalid("neither \"root ::= ...\" (GBNF) nor \"start: ...\" (Lark) is there");
    builder_.define(ignored_, builder_.optional(builder_.choice(ignored_parts_)));
    return start;
  }

 private:
  void skip_blanks(bool lines) {
    while (!at_end()) {
      if (next_is("//") || next() == '#') {
        while (!at_end() && next() != '\n') ++pos_;
      } else if (next() == ' ' || next() == '\t' || next() == '\r' || (lines && next() == '\n')) {
        ++pos_;
      } else {
        return;
      }
    }
  }

  std::string take_name() {
    const size_t begin = pos_;
    while (!at_end() && is_name_character(next())) ++pos_;
    return std::string(text_.substr(begin, pos_ - begin));
  }

  Status end_of_line() {
    skip_blanks(false);
    if (!at_end() && next() != '\n') return invalid(fmt::format("'{}' is not expected here", text_.substr(pos_, 1)));
    return {};
  }

  Status parse_directive() {
    ++pos_;
    const std::string name = take_name();
    skip_blanks(false);
    if (name == "ignore") {
      in_terminal_ = true;
      HADAL_ASSIGN_OR_RETURN(const Alternatives alternatives, parse_alternatives(0));
      ignored_parts_.push_back(choice_of(alternatives));
      return end_of_line();
    }
    if (name != "import") return unsupported(fmt::format("%{} is", name));
    if (!take("common.")) return unsupported("%import from elsewhere than \"common\" is");
    if (next() == '(') return unsupported("%import of several names is");
    const std::string imported = take_name();
    std::string alias = imported;
    skip_blanks(false);
    if (take("->")) {
      skip_blanks(false);
      alias = take_name();
    }
    const auto found = std::find_if(std::begin(kCommon), std::end(kCommon),
                                    [&](const auto& known) { return known.first == imported; });
    if (found == std::end(kCommon)) return unsupported(fmt::format("%import of \"{}\" is", imported));
    const Rule target = rule(alias);
    if (alias.empty() || is_defined(target)) return invalid(fmt::format("a second rule \"{}\"", alias));
    HADAL_ASSIGN_OR_RETURN(const Expr body, regex_expression(builder_, found->second));
    builder_.define(target, body);
    return end_of_line();
  }

  Status parse_rule() {
    while (next() == '?' || next() == '!') ++pos_;  // say how trees are built
    const std::string name = take_name();
    if (name.empty()) return invalid(fmt::format("a rule expected, not '{}'", text_.substr(pos_, 1)));
    if (next() == '{') return unsupported("a rule with parameters is");
    if (take(".")) {  // a priority: which of several parses counts
      HADAL_RETURN_IF_ERROR(take_number());
    }
    skip_blanks(false);
    if (!take(":")) return invalid(fmt::format("':' expected behind \"{}\"", name));
    const Rule target = rule(name);
    if (is_defined(target)) return invalid(fmt::format("a second rule \"{}\"", name));
    in_terminal_ = is_terminal_name(name);
    HADAL_ASSIGN_OR_RETURN(const Alternatives alternatives, parse_alternatives(0));
    define(target, alternatives);
    return end_of_line();
  }

  // Lines go on inside brackets and where the next one begins with '|'.
  void skip_inside(int depth) {
    skip_blanks(depth > 0);
    if (depth > 0) return;
    const size_t begin = pos_;
    skip_blanks(true);
    if (next() != '|') pos_ = begin;
  }

  Expected<Alternatives> parse_alternatives(int depth) {
    if (depth > kMaxDepth) return unsupported(fmt::format("brackets nested deeper than {} levels are", kMaxDepth));
    Alternatives alternatives;
    do {
      alternatives.emplace_back();
      for (skip_inside(depth); !at_end() && next() != '|' && next() != ')' && next() != ']' && next() != '\n';
           skip_inside(depth)) {
        if (take("->")) {  // names a tree
          skip_blanks(false);
          if (take_name().empty()) return invalid("a name expected behind \"->\"");
          continue;
        }
        HADAL_ASSIGN_OR_RETURN(const Expr part, parse_part(depth));
        alternatives.back().push_back(part);
      }
    } while (take("|"));
    return alternatives;
  }

  Expected<Expr> parse_part(int depth) {
    HADAL_ASSIGN_OR_RETURN(Expr part, parse_atom(depth));
    while (take_repeat_sign(part)) continue;
    const size_t end = pos_;
    skip_blanks(false);
    if (!take("~")) {
      pos_ = end;
      return part;
    }
    skip_blanks(false);
    HADAL_ASSIGN_OR_RETURN(const uint32_t min, take_number());
    uint32_t max = min;
    skip_blanks(false);
    if (take("..")) {
      skip_blanks(false);
      HADAL_ASSIGN_OR_RETURN(max, take_number());
    }
    if (min > max) return invalid("a repetition whose minimum is above its maximum");
    return builder_.repeat(part, min, max);
  }

  Expected<Expr> parse_atom(int depth) {
    if (take("(")) {
      HADAL_ASSIGN_OR_RETURN(const Alternatives alternatives, parse_alternatives(depth + 1));
      if (!take(")")) return invalid("')' expected");
      return choice_of(alternatives);
    }
    if (take("[")) {
      HADAL_ASSIGN_OR_RETURN(const Alternatives alternatives, parse_alternatives(depth + 1));
      if (!take("]")) return invalid("']' expected");
      return builder_.optional(choice_of(alternatives));
    }
    if (next() == '"') {
      HADAL_ASSIGN_OR_RETURN(const Expr text, parse_string());
      return terminal(text);
    }
    if (take("/")) {
      HADAL_ASSIGN_OR_RETURN(const Expr regex, parse_slashes());
      return terminal(regex);
    }
    const std::string name = take_name();
    if (name.empty()) return invalid(fmt::format("'{}' is not expected here", text_.substr(pos_, 1)));
    if (next() == '{') return unsupported("a rule with parameters is");
    const Expr call = builder_.call(rule(name));
    return is_terminal_name(name) ? terminal(call) : call;
  }

  // What %ignore names may come before every terminal of a rule.
  Expr terminal(Expr expr) { return in_terminal_ ? expr : builder_.sequence({builder_.call(ignored_), expr}); }

  Expected<Expr> parse_string() {
    ++pos_;
    HADAL_ASSIGN_OR_RETURN(const std::string text, take_string('"'));
    if (take("..")) {
      if (!take("\"")) return invalid("'\"' expected behind \"..\"");
      HADAL_ASSIGN_OR_RETURN(const std::string last, take_string('"'));
      return parse_range(text, last);
    }
    if (next() != 'i') return builder_.literal(text);
    ++pos_;
    std::vector<Expr> characters;
    for (const char c : text) {
      const bool is_ascii = static_cast<uint8_t>(c) < 0x80;
      characters.push_back(is_ascii ? builder_.code_points(CodePointSet::of({&c, 1}).ascii_case_folded())
                                    : builder_.literal({&c, 1}));
    }
    return builder_.sequence(std::move(characters));
  }

  Expected<Expr> parse_range(std::string_view first, std::string_view last) {
    const auto one = [](std::string_view text) -> std::optional<char32_t> {
      if (text.empty()) return std::nullopt;
      const Utf8Step step = decode_utf8(text);
      if (step.num_bytes != text.size()) return std::nullopt;
      return step.code_point;
    };
    const auto low = one(first), high = one(last);
    if (!low || !high || *low > *high) return invalid("a range is of two characters, ascending");
    return builder_.code_points({{*low, *high}});
  }

  // Behind the first slash.
  Expected<Expr> parse_slashes() {
    const size_t begin = pos_;
    bool in_class = false;
    for (; !at_end() && next() != '\n' && (next() != '/' || in_class); ++pos_) {
      if (next() == '\\' && pos_ + 1 < text_.size()) {
        ++pos_;
      } else if (next() == '[') {
        in_class = true;
      } else if (next() == ']') {
        in_class = false;
      }
    }
    std::string pattern(text_.substr(begin, pos_ - begin));
    if (!take("/")) return invalid("a regex without its second '/'");
    std::string flags;
    for (; next() >= 'a' && next() <= 'z'; ++pos_) {
      if (next() == 'i' || next() == 's') {
        flags += next();
      } else if (next() != 'u') {
        return unsupported(fmt::format("the regex flag '{}' is", next()));
      }
    }
    if (!flags.empty()) pattern = fmt::format("(?{}:{})", flags, pattern);
    auto regex = regex_expression(builder_, pattern);
    if (!regex) {
      const auto line = std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(pos_), '\n') + 1;
      return forward_error(std::move(regex), fmt::format("grammar, line {}", line));
    }
    return *regex;
  }

  Rule ignored_ = 0;
  std::vector<Expr> ignored_parts_;
  bool in_terminal_ = false;
};

}  // namespace

Expected<GrammarBuilder::Rule> parse_lark(GrammarBuilder& builder, std::string_view text) {
  return LarkParser(builder, text).run();
}

}  // namespace hadal
