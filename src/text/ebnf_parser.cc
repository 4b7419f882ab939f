#include "text/ebnf_parser.h"

#include <algorithm>

#include "base/utf8.h"

namespace hadal {

char32_t EbnfParser::take_character() {
  const Utf8Step step = decode_utf8(text_.substr(pos_));
  pos_ += step.num_bytes;
  return step.code_point;
}

tl::unexpected<Error> EbnfParser::invalid(std::string_view what) const {
  const auto line = std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(pos_), '\n') + 1;
  return make_error(ErrorCode::kInvalidArgument, "grammar, line {}: {}", line, what);
}

tl::unexpected<Error> EbnfParser::unsupported(std::string_view what) const {
  const auto line = std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(pos_), '\n') + 1;
  return make_error(ErrorCode::kUnsupported, "grammar, line {}: {} not supported", line, what);
}

Expected<std::string> EbnfParser::take_string(char quote) {
  std::string result;
  for (;;) {
    if (at_end() || next() == '\n') return invalid("a string that does not end");
    if (next() == quote) break;
    if (take("\\")) {
      HADAL_ASSIGN_OR_RETURN(const char32_t c, take_escape());
      append_utf8(result, c);
    } else {
      append_utf8(result, take_character());
    }
  }
  ++pos_;
  return result;
}

Expected<char32_t> EbnfParser::take_escape() {
  if (at_end()) return invalid("a backslash at the end");
  const char32_t c = take_character();
  switch (c) {
    case 'n':
      return U'\n';
    case 't':
      return U'\t';
    case 'r':
      return U'\r';
    case 'f':
      return U'\f';
    case 'v':
      return U'\v';
    case 'b':
      return U'\b';
    case 'a':
      return U'\a';
    case '0':
      return U'\0';
    case 'x':
      return take_hex(2);
    case 'u':
      return take_hex(4);
    case 'U':
      return take_hex(8);
    default:
      break;
  }
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9')) {
    return unsupported(fmt::format("the escape \"\\{}\" is", static_cast<char>(c)));
  }
  return c;
}

Expected<char32_t> EbnfParser::take_hex(size_t num_digits) {
  const auto [value, num_found] = read_hex_digits(text_.substr(pos_), num_digits);
  if (num_found < num_digits) return invalid(fmt::format("{} hexadecimal digits expected", num_digits));
  pos_ += num_digits;
  if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return invalid("an escape that is no character");
  return value;
}

Expected<uint32_t> EbnfParser::take_number() {
  uint32_t value = 0;
  const size_t begin = pos_;
  for (; next() >= '0' && next() <= '9'; ++pos_) {
    value = std::min(value * 10 + static_cast<uint32_t>(next() - '0'), kMaxRepeat + 1);
  }
  if (pos_ == begin) return invalid("a number expected");
  if (value > kMaxRepeat) {
    return make_error(ErrorCode::kResourceExhausted, "grammar: more than {} repetitions", kMaxRepeat);
  }
  return value;
}

GrammarBuilder::Rule EbnfParser::rule(const std::string& name) {
  if (const auto found = rules_.find(name); found != rules_.end()) return found->second;
  return rules_.emplace(name, builder_.add_rule(name)).first->second;
}

GrammarBuilder::Expr EbnfParser::choice_of(const Alternatives& alternatives) {
  std::vector<Expr> parts;
  for (const auto& alternative : alternatives) parts.push_back(builder_.sequence(alternative));
  return builder_.choice(std::move(parts));
}

void EbnfParser::define(Rule rule, const Alternatives& alternatives) {
  Alternatives first, loops;
  for (std::vector<Expr> alternative : alternatives) {
    std::erase(alternative, GrammarBuilder::kEmpty);
    const bool is_recursive = !alternative.empty() &&
                              builder_.node(alternative[0]).kind == GrammarBuilder::Kind::kCall &&
                              builder_.node(alternative[0]).values[0] == rule;
    if (!is_recursive) {
      first.push_back(alternative);
    } else if (alternative.size() > 1) {
      loops.emplace_back(alternative.begin() + 1, alternative.end());
    }
  }
  const Expr loop = builder_.repeat(choice_of(loops), 0, GrammarBuilder::kUnbounded);
  builder_.define(rule, builder_.sequence({choice_of(first), loop}));
}

bool EbnfParser::take_repeat_sign(Expr& part) {
  if (take("*")) {
    part = builder_.repeat(part, 0, GrammarBuilder::kUnbounded);
  } else if (take("+")) {
    part = builder_.repeat(part, 1, GrammarBuilder::kUnbounded);
  } else if (take("?")) {
    part = builder_.optional(part);
  } else {
    return false;
  }
  return true;
}

Expected<Grammar> compile_ebnf(std::string_view source, const GrammarLimits& limits) {
  if (source.size() > limits.max_source_bytes) {
    return make_error(ErrorCode::kResourceExhausted, "grammar of {} bytes, at most {} accepted", source.size(),
                      limits.max_source_bytes);
  }
  if (const size_t bad = find_invalid_utf8(source); bad != std::string_view::npos) {
    return make_error(ErrorCode::kInvalidArgument, "grammar: not valid UTF-8 at byte {}", bad);
  }
  GrammarBuilder builder(limits);
  const bool is_gbnf = source.find("::=") != std::string_view::npos;
  HADAL_ASSIGN_OR_RETURN(const GrammarBuilder::Rule root,
                         is_gbnf ? parse_gbnf(builder, source) : parse_lark(builder, source));
  return builder.build(root);
}

}  // namespace hadal
