#include "text/json_grammar.h"

namespace hadal {
namespace {

constexpr uint32_t kMaxIndentBlanks = 16, kMaxIndentTabs = 4;
constexpr uint32_t kMaxDigits = 18, kMaxExponentDigits = 2;

struct ShortEscape {
  char32_t character;
  std::string_view text;
};
constexpr ShortEscape kShortEscapes[] = {{'"', "\\\""}, {'\\', "\\\\"}, {'\b', "\\b"}, {'\f', "\\f"},
                                         {'\n', "\\n"}, {'\r', "\\r"},  {'\t', "\\t"}};

CodePointSet unescaped() { return CodePointSet{{0x20, '!'}, {'#', '['}, {']', 0x10FFFF}}; }

}  // namespace

JsonGrammar::JsonGrammar(GrammarBuilder& builder, bool any_whitespace, bool guard_markers)
    : builder_(builder), guard_markers_(guard_markers) {
  if (!any_whitespace) {
    whitespace_ = GrammarBuilder::kEmpty;
    comma_ = builder.literal(", ");
    colon_ = builder.literal(": ");
    return;
  }
  const Expr indent = builder.choice({builder.repeat(builder.literal(" "), 0, kMaxIndentBlanks),
                                      builder.repeat(builder.literal("\t"), 1, kMaxIndentTabs)});
  const Expr line = builder.sequence({builder.optional(builder.literal("\r")), builder.literal("\n"), indent});
  whitespace_ = builder.as_rule("whitespace", builder.choice({GrammarBuilder::kEmpty, builder.literal(" "), line}));
  comma_ = builder.sequence({builder.literal(","), whitespace_});
  colon_ = builder.sequence({builder.literal(":"), whitespace_});
}

JsonGrammar::Expr JsonGrammar::bracketed(std::string_view open, Expr inside, std::string_view close) {
  const Expr filled = builder_.sequence({inside, whitespace_});
  const Expr empty = GrammarBuilder::kEmpty;
  // An empty inside would make the whitespace ambiguous.
  return builder_.sequence(
      {builder_.literal(open), whitespace_, inside == empty ? empty : filled, builder_.literal(close)});
}

JsonGrammar::Expr JsonGrammar::list_of(Expr element) {
  const Expr more = builder_.repeat(builder_.sequence({comma_, element}), 0, GrammarBuilder::kUnbounded);
  return builder_.sequence({element, more});
}

JsonGrammar::Expr JsonGrammar::value() {
  if (!value_) {
    const GrammarBuilder::Rule rule = builder_.add_rule("value");
    value_ = builder_.call(rule);
    builder_.define(rule, builder_.choice({object(), array(), string(), number(), boolean(), null()}));
  }
  return *value_;
}

JsonGrammar::Expr JsonGrammar::object() {
  if (!object_) {
    const GrammarBuilder::Rule rule = builder_.add_rule("object");
    object_ = builder_.call(rule);
    const Expr member = builder_.sequence({string(), colon_, value()});
    builder_.define(rule, builder_.choice({object_of(GrammarBuilder::kEmpty), object_of(list_of(member))}));
  }
  return *object_;
}

JsonGrammar::Expr JsonGrammar::array() {
  if (!array_) {
    const GrammarBuilder::Rule rule = builder_.add_rule("array");
    array_ = builder_.call(rule);
    builder_.define(rule, builder_.choice({array_of(GrammarBuilder::kEmpty), array_of(list_of(value()))}));
  }
  return *array_;
}

JsonGrammar::Expr JsonGrammar::string() {
  if (!string_) {
    const Expr characters =
        guard_markers_ ? guarded_characters() : builder_.repeat(any_character(), 0, GrammarBuilder::kUnbounded);
    string_ = builder_.as_rule("string", quoted(characters));
  }
  return *string_;
}

JsonGrammar::Expr JsonGrammar::integer() {
  if (!integer_) {
    const Expr digit = builder_.bytes('0', '9');
    const Expr positive = builder_.sequence({builder_.bytes('1', '9'), builder_.repeat(digit, 0, kMaxDigits - 1)});
    const Expr body = builder_.sequence(
        {builder_.optional(builder_.literal("-")), builder_.choice({builder_.literal("0"), positive})});
    integer_ = builder_.as_rule("integer", body);
  }
  return *integer_;
}

JsonGrammar::Expr JsonGrammar::number() {
  if (!number_) {
    const Expr digit = builder_.bytes('0', '9');
    const Expr fraction = builder_.sequence({builder_.literal("."), builder_.repeat(digit, 1, kMaxDigits)});
    const Expr sign = builder_.optional(builder_.choice({builder_.literal("+"), builder_.literal("-")}));
    const Expr exponent = builder_.sequence({builder_.choice({builder_.literal("e"), builder_.literal("E")}), sign,
                                             builder_.repeat(digit, 1, kMaxExponentDigits)});
    const Expr positive = builder_.sequence({builder_.bytes('1', '9'), builder_.repeat(digit, 0, kMaxDigits - 1)});
    const Expr body =
        builder_.sequence({builder_.optional(builder_.literal("-")), builder_.choice({builder_.literal("0"), positive}),
                           builder_.optional(fraction), builder_.optional(exponent)});
    number_ = builder_.as_rule("number", body);
  }
  return *number_;
}

JsonGrammar::Expr JsonGrammar::boolean() {
  return builder_.choice({builder_.literal("true"), builder_.literal("false")});
}

JsonGrammar::Expr JsonGrammar::literal(const Json& value) {
  if (!value.is_structured()) return builder_.literal(dump_json(value));
  std::vector<Expr> parts;
  for (const auto& [key, element] : value.items()) {
    if (!parts.empty()) parts.push_back(comma_);
    if (value.is_object()) {
      parts.push_back(builder_.literal(dump_json(key)));
      parts.push_back(colon_);
    }
    parts.push_back(literal(element));
  }
  const Expr inside = builder_.sequence(std::move(parts));
  return value.is_object() ? object_of(inside) : array_of(inside);
}

// One of these characters as itself, or any escape.
JsonGrammar::Expr JsonGrammar::character_of(const CodePointSet& unescaped) {
  if (!escape_) {
    const auto hex = [&](const CodePointSet& set) { return builder_.code_points(set); };
    const CodePointSet digits = {{'0', '9'}, {'A', 'F'}, {'a', 'f'}};
    const Expr any = hex(digits);
    // \uXXXX of a character, or of the two halves of one.
    const Expr below = builder_.sequence({hex({{'0', '9'}, {'A', 'C'}, {'E', 'F'}, {'a', 'c'}, {'e', 'f'}}), any});
    const Expr below_d8 = builder_.sequence({hex({{'D', 'D'}, {'d', 'd'}}), hex({{'0', '7'}})});
    const Expr single = builder_.sequence({builder_.choice({below, below_d8}), any, any});
    const Expr d = hex({{'D', 'D'}, {'d', 'd'}});
    const Expr pair = builder_.sequence({d, hex({{'8', '9'}, {'A', 'B'}, {'a', 'b'}}), any, any,
                                         builder_.literal("\\u"), d, hex({{'C', 'F'}, {'c', 'f'}}), any, any});
    const Expr unicode = builder_.sequence({builder_.literal("u"), builder_.choice({single, pair})});
    escape_ = builder_.sequence(
        {builder_.literal("\\"), builder_.choice({builder_.code_points(CodePointSet::of("\"\\/bfnrt")), unicode})});
  }
  return builder_.choice({builder_.code_points(unescaped), *escape_});
}

JsonGrammar::Expr JsonGrammar::any_character() {
  if (!any_character_) any_character_ = character_of(unescaped());
  return *any_character_;
}

// Node 1: behind a '<'.
JsonGrammar::Expr JsonGrammar::guarded_characters() {
  const CodePointSet less = {{'<', '<'}}, bars = {{'|', '|'}, {0xFF5C, 0xFF5C}};
  const Expr other = character_of(unescaped().minus(less));
  const Expr no_bar = character_of(unescaped().minus(less).minus(bars));
  const Expr one_less = builder_.code_points(less);
  return builder_.graph(2, {{0, 0, other}, {0, 1, one_less}, {1, 1, one_less}, {1, 0, no_bar}}, {0, 1});
}

JsonGrammar::Expr JsonGrammar::character(const CodePointSet& set) {
  std::vector<Expr> spellings = {builder_.code_points(set.intersection(unescaped()))};
  CodePointSet rest = set.minus(unescaped());
  for (const ShortEscape& escape : kShortEscapes) {
    if (!rest.contains(escape.character)) continue;
    spellings.push_back(builder_.literal(escape.text));
    rest = rest.minus({{escape.character, escape.character}});
  }
  for (const CodePointSet::Range& range : rest.ranges()) {
    for (char32_t c = range.low; c <= range.high; ++c) {
      spellings.push_back(builder_.literal(fmt::format("\\u{:04x}", static_cast<uint32_t>(c))));
    }
  }
  return builder_.choice(std::move(spellings));
}

JsonGrammar::Expr JsonGrammar::quoted(Expr characters) {
  return builder_.sequence({builder_.literal("\""), characters, builder_.literal("\"")});
}

}  // namespace hadal
