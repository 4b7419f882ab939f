#include "text/regex_parser.h"

#include <algorithm>
#include <optional>
#include <string>

#include "base/utf8.h"

namespace hadal {
namespace {

using Kind = RegexNode::Kind;

// Groups inside groups.
constexpr int kMaxDepth = 200;
constexpr uint32_t kMaxRepeat = 100'000;

CodePointSet digits() { return {{'0', '9'}}; }
CodePointSet word_characters() { return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}; }
CodePointSet blanks() { return {{'\t', '\r'}, {' ', ' '}}; }
CodePointSet line_ends() { return {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}; }

RegexNode set_node(CodePointSet set) { return {.kind = Kind::kSet, .set = std::move(set)}; }

std::optional<CodePointSet> posix_class(std::string_view name) {
  if (name == "alpha") return CodePointSet{{'A', 'Z'}, {'a', 'z'}};
  if (name == "digit") return digits();
  if (name == "alnum") return CodePointSet{{'0', '9'}, {'A', 'Z'}, {'a', 'z'}};
  if (name == "upper") return CodePointSet{{'A', 'Z'}};
  if (name == "lower") return CodePointSet{{'a', 'z'}};
  if (name == "space") return blanks();
  if (name == "xdigit") return CodePointSet{{'0', '9'}, {'A', 'F'}, {'a', 'f'}};
  if (name == "word") return word_characters();
  if (name == "punct") return CodePointSet{{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}};
  return std::nullopt;
}

class RegexParser {
 public:
  explicit RegexParser(std::string_view pattern) : text_(pattern) {}

  Expected<RegexNode> run() {
    if (const size_t bad = find_invalid_utf8(text_); bad != std::string_view::npos) {
      return make_error(ErrorCode::kInvalidArgument, "regex: not valid UTF-8 at byte {}", bad);
    }
    HADAL_ASSIGN_OR_RETURN(RegexNode node, parse_choice(0));
    if (!at_end()) return invalid("')' without '('");
    return node;
  }

 private:
  struct Flags {
    bool ignore_case = false;
    bool dot_all = false;
  };

  bool at_end() const { return pos_ == text_.size(); }
  bool next_is(std::string_view what) const { return text_.substr(pos_).starts_with(what); }
  bool take(std::string_view what) {
    if (!next_is(what)) return false;
    pos_ += what.size();
    return true;
  }
  // Requires !at_end().
  char32_t take_character() {
    const Utf8Step step = decode_utf8(text_.substr(pos_));
    pos_ += step.num_bytes;
    return step.code_point;
  }
  tl::unexpected<Error> invalid(std::string_view what) const {
    return make_error(ErrorCode::kInvalidArgument, "regex, byte {}: {}", pos_, what);
  }
  tl::unexpected<Error> unsupported(std::string_view what) const {
    return make_error(ErrorCode::kUnsupported, "regex, byte {}: {} not supported", pos_, what);
  }

  RegexNode character_node(char32_t c) const {
    return set_node(flags_.ignore_case ? CodePointSet{{c, c}}.ascii_case_folded() : CodePointSet{{c, c}});
  }

  Expected<RegexNode> parse_choice(int depth) {
    if (depth > kMaxDepth) return unsupported(fmt::format("groups nested deeper than {} levels are", kMaxDepth));
    const Flags outer = flags_;
    RegexNode choice{.kind = Kind::kChoice};
    do {
      HADAL_ASSIGN_OR_RETURN(RegexNode sequence, parse_sequence(depth));
      choice.parts.push_back(std::move(sequence));
    } while (take("|"));
    flags_ = outer;
    if (choice.parts.size() == 1) return std::move(choice.parts[0]);
    return choice;
  }

  Expected<RegexNode> parse_sequence(int depth) {
    RegexNode sequence{.kind = Kind::kSequence};
    while (!at_end() && !next_is("|") && !next_is(")")) {
      HADAL_ASSIGN_OR_RETURN(RegexNode atom, parse_atom(depth));
      HADAL_RETURN_IF_ERROR(parse_quantifiers(atom));
      sequence.parts.push_back(std::move(atom));
    }
    return sequence;
  }

  Status parse_quantifiers(RegexNode& atom) {
    uint32_t min = 0, max = 0;
    HADAL_ASSIGN_OR_RETURN(const bool found, parse_quantifier(min, max));
    if (!found) return {};
    if (atom.kind == Kind::kBegin || atom.kind == Kind::kEnd) return invalid("a quantifier behind an anchor");
    if (take("+")) return unsupported("possessive quantifiers are");
    take("?");
    uint32_t ignored = 0;
    const size_t after = pos_;
    HADAL_ASSIGN_OR_RETURN(const bool again, parse_quantifier(ignored, ignored));
    pos_ = after;
    if (again) return invalid("a quantifier behind a quantifier");
    RegexNode repeat{.kind = Kind::kRepeat, .min = min, .max = max};
    repeat.parts.push_back(std::move(atom));
    atom = std::move(repeat);
    return {};
  }

  Expected<bool> parse_quantifier(uint32_t& min, uint32_t& max) {
    if (take("*")) return min = 0, max = RegexNode::kUnbounded, true;
    if (take("+")) return min = 1, max = RegexNode::kUnbounded, true;
    if (take("?")) return min = 0, max = 1, true;
    if (!next_is("{")) return false;
    const size_t begin = pos_++;
    const auto low = parse_number();
    if (!low && next_is(",")) return unsupported("'{,' (write {0,) is");
    bool is_quantifier = low.has_value();
    std::optional<uint32_t> high = low;
    if (is_quantifier && take(",")) {
      high = parse_number();
      if (!high) high = RegexNode::kUnbounded;
    }
    if (!is_quantifier || !take("}")) {
      pos_ = begin;  // an ordinary brace
      return false;
    }
    if (*low > kMaxRepeat || (*high > kMaxRepeat && *high != RegexNode::kUnbounded)) {
      return make_error(ErrorCode::kResourceExhausted, "regex, byte {}: more than {} repetitions", begin, kMaxRepeat);
    }
    if (*low > *high) return invalid("a quantifier whose minimum is above its maximum");
    min = *low;
    max = *high;
    return true;
  }

  std::optional<uint32_t> parse_number() {
    uint64_t value = 0;
    const size_t begin = pos_;
    for (; !at_end() && text_[pos_] >= '0' && text_[pos_] <= '9'; ++pos_) {
      value = std::min<uint64_t>(value * 10 + static_cast<uint64_t>(text_[pos_] - '0'), kMaxRepeat + 1);
    }
    if (pos_ == begin) return std::nullopt;
    return static_cast<uint32_t>(value);
  }

  Expected<RegexNode> parse_atom(int depth) {
    if (next_is("*") || next_is("+") || next_is("?")) return invalid("a quantifier with nothing before it");
    if (take("(")) return parse_group(depth);
    if (take("[")) return parse_class();
    if (take("^")) return RegexNode{.kind = Kind::kBegin};
    if (take("$")) return RegexNode{.kind = Kind::kEnd};
    if (take(".")) return set_node(flags_.dot_all ? CodePointSet::all() : line_ends().complement());
    if (take("\\")) return parse_escape();
    return character_node(take_character());
  }

  Expected<RegexNode> parse_group(int depth) {
    const Flags outer = flags_;
    if (take("?")) {
      HADAL_ASSIGN_OR_RETURN(const bool has_body, parse_group_head());
      if (!has_body) return RegexNode{};
    }
    HADAL_ASSIGN_OR_RETURN(RegexNode node, parse_choice(depth + 1));
    if (!take(")")) return invalid("'(' without ')'");
    flags_ = outer;
    // A quantifier applies to the whole group.
    return node;
  }

  // Behind "(?". False for "(?i)", which only sets flags.
  Expected<bool> parse_group_head() {
    if (take(":")) return true;
    if (next_is("=") || next_is("!") || next_is("<=") || next_is("<!")) return unsupported("look-around is");
    if (next_is(">")) return unsupported("atomic groups are");
    if (next_is("#")) return unsupported("comments are");
    if (next_is("P=") || next_is("P>") || next_is("&") || next_is("R")) {
      return unsupported("back references and recursion are");
    }
    if (next_is("(")) return unsupported("conditional groups are");
    if (take("P<") || take("<") || take("'")) {
      const char end = text_[pos_ - 1] == '\'' ? '\'' : '>';
      const size_t close = text_.find(end, pos_);
      if (close == std::string_view::npos || close == pos_) return invalid("a group name that does not end");
      pos_ = close + 1;
      return true;
    }
    for (bool on = true; !at_end();) {
      if (take("-")) {
        on = false;
      } else if (take("i")) {
        flags_.ignore_case = on;
      } else if (take("s")) {
        flags_.dot_all = on;
      } else if (take(")")) {
        return false;
      } else if (take(":")) {
        return true;
      } else {
        return unsupported(fmt::format("the group \"(?{}\" is", text_.substr(pos_, 1)));
      }
    }
    return invalid("'(' without ')'");
  }

  // Behind the backslash, outside of classes.
  Expected<RegexNode> parse_escape() {
    if (at_end()) return invalid("a backslash at the end");
    if (next_is("b") || next_is("B")) return unsupported("word boundaries (\\b) are");
    if (take("A")) return RegexNode{.kind = Kind::kBegin};
    if (take("z") || take("Z")) return RegexNode{.kind = Kind::kEnd};
    if (text_[pos_] >= '1' && text_[pos_] <= '9') return unsupported("back references are");
    if (next_is("k") || next_is("g")) return unsupported("back references are");
    CodePointSet set;
    HADAL_RETURN_IF_ERROR(parse_set_escape(set));
    return set_node(flags_.ignore_case ? set.ascii_case_folded() : set);
  }

  // Behind the backslash: a set, or one character. Inside and outside of classes.
  Status parse_set_escape(CodePointSet& set) {
    if (at_end()) return invalid("a backslash at the end");
    const char32_t c = take_character();
    switch (c) {
      case 'd':
        return set = digits(), Status();
      case 'D':
        return set = digits().complement(), Status();
      case 'w':
        return set = word_characters(), Status();
      case 'W':
        return set = word_characters().complement(), Status();
      case 's':
        return set = blanks(), Status();
      case 'S':
        return set = blanks().complement(), Status();
      case 'p':
      case 'P':
        return unsupported("Unicode properties (\\p) are");
      default:
        break;
    }
    HADAL_ASSIGN_OR_RETURN(const char32_t value, parse_character_escape(c));
    set.add(value, value);
    if (set.empty()) return invalid("a surrogate is no character");
    return {};
  }

  Expected<char32_t> parse_character_escape(char32_t c) {
    switch (c) {
      case 't':
        return U'\t';
      case 'n':
        return U'\n';
      case 'r':
        return U'\r';
      case 'f':
        return U'\f';
      case 'v':
        return U'\v';
      case 'e':
        return U'\x1B';
      case '0':
        if (!at_end() && text_[pos_] >= '0' && text_[pos_] <= '9') return unsupported("octal escapes are");
        return U'\0';
      case 'x':
        if (next_is("{")) return parse_braced_hex();
        return parse_hex(2);
      case 'u':
        if (next_is("{")) return parse_braced_hex();
        return parse_unit_pair();
      case 'U':
        return parse_hex(8);
      default:
        break;
    }
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9')) {
      return unsupported(fmt::format("the escape \"\\{}\" is", static_cast<char>(c)));
    }
    return c;
  }

  Expected<char32_t> parse_unit_pair() {
    HADAL_ASSIGN_OR_RETURN(const char32_t first, parse_hex(4));
    if (first < 0xD800 || first > 0xDBFF || !take("\\u")) return first;
    HADAL_ASSIGN_OR_RETURN(const char32_t second, parse_hex(4));
    if (second < 0xDC00 || second > 0xDFFF) return invalid("a surrogate is no character");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  Expected<char32_t> parse_hex(size_t num_digits) {
    const auto [value, num_found] = read_hex_digits(text_.substr(pos_), num_digits);
    pos_ += num_found;
    if (num_found < num_digits) return invalid(fmt::format("{} hexadecimal digits expected", num_digits));
    if (value > 0x10FFFF) return invalid("a character above U+10FFFF");
    return value;
  }

  Expected<char32_t> parse_braced_hex() {
    ++pos_;
    const auto [value, num_found] = read_hex_digits(text_.substr(pos_));
    pos_ += num_found;
    if (value > 0x10FFFF) return invalid("a character above U+10FFFF");
    if (num_found == 0 || !take("}")) return invalid("hexadecimal digits and '}' expected");
    return value;
  }

  // Behind '['.
  Expected<RegexNode> parse_class() {
    CodePointSet set;
    const bool is_negated = take("^");
    for (bool is_first = true; is_first || !next_is("]"); is_first = false) {
      if (at_end()) return invalid("'[' without ']'");
      HADAL_RETURN_IF_ERROR(parse_class_item(set));
    }
    take("]");
    if (flags_.ignore_case) set = set.ascii_case_folded();
    if (is_negated) set = set.complement();
    return set_node(std::move(set));
  }

  Status parse_class_item(CodePointSet& set) {
    if (take("[:")) {
      const size_t close = text_.find(":]", pos_);
      const auto named = posix_class(text_.substr(pos_, close == std::string_view::npos ? 0 : close - pos_));
      if (!named) return unsupported("this kind of class is");
      set.add(*named);
      pos_ = close + 2;
      return {};
    }
    CodePointSet item;
    HADAL_ASSIGN_OR_RETURN(const std::optional<char32_t> low, parse_class_character(item));
    if (!low) {
      set.add(item);
      return {};
    }
    if (!next_is("-") || text_.substr(pos_ + 1).starts_with("]") || pos_ + 1 == text_.size()) {
      set.add(*low, *low);
      return {};
    }
    ++pos_;
    HADAL_ASSIGN_OR_RETURN(const std::optional<char32_t> high, parse_class_character(item));
    if (!high) return invalid("a range that ends with a class");
    if (*low > *high) return invalid("a range whose first character comes after its last");
    set.add(*low, *high);
    return {};
  }

  // One character, or nothing and `set`.
  Expected<std::optional<char32_t>> parse_class_character(CodePointSet& set) {
    if (at_end()) return invalid("'[' without ']'");
    if (!take("\\")) return std::optional<char32_t>(take_character());
    if (take("b")) return std::optional<char32_t>(U'\b');
    set = {};
    HADAL_RETURN_IF_ERROR(parse_set_escape(set));
    if (set.ranges().size() == 1 && set.ranges()[0].low == set.ranges()[0].high) {
      return std::optional<char32_t>(set.ranges()[0].low);
    }
    return std::optional<char32_t>();
  }

  const std::string_view text_;
  size_t pos_ = 0;
  Flags flags_;
};

}  // namespace

Expected<RegexNode> parse_regex(std::string_view pattern) { return RegexParser(pattern).run(); }

}  // namespace hadal
