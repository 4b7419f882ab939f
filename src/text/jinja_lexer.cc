#include "text/jinja_lexer.h"

#include <algorithm>
#include <charconv>

#include "base/utf8.h"
#include "text/python_text.h"

namespace hadal::jinja {
namespace {

constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                           "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

// "\r\n" and "\r" become "\n"; one newline at the end goes.
std::string normalize_newlines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      text += '\n';
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  Expected<std::vector<Token>> run() {
    while (pos_ < source_.size()) HADAL_RETURN_IF_ERROR(root());
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return std::string_view(source_).substr(pos_); }
  char at(size_t offset) const { return pos_ + offset < source_.size() ? source_[pos_ + offset] : '\0'; }

  void advance(size_t count) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(pos_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(pos_ + count), '\n'));
    pos_ += count;
  }
  void advance_blanks() { advance(rest().size() - python_lstrip(rest()).size()); }

  void add(TokenKind kind, std::string_view text) { tokens_.push_back({kind, std::string(text), Value(), line_}); }

  template <typename... Args>
  tl::unexpected<Error> error(fmt::format_string<Args...> format, Args&&... args) const {
    return make_error(ErrorCode::kInvalidArgument, "line {}: {}", line_,
                      fmt::format(format, std::forward<Args>(args)...));
  }

  // Text up to the next tag, then the tag.
  Status root() {
    size_t tag = pos_;
    while ((tag = source_.find('{', tag)) != std::string::npos) {
      const char next = tag + 1 < source_.size() ? source_[tag + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') break;
      ++tag;
    }
    if (tag == std::string::npos) {
      add(TokenKind::kData, rest());
      advance(rest().size());
      return {};
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    std::string_view text = rest().substr(0, tag - pos_);
    if (sign == '-') {
      text = python_rstrip(text);
    } else if (sign != '+' && kind != '{') {
      // lstrip_blocks: blanks between the line's start and the tag.
      const size_t newline = text.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      const bool is_line_begin = line_begin > 0 || at_line_begin_;
      if (is_line_begin && python_lstrip(text.substr(line_begin)).empty()) text = text.substr(0, line_begin);
    }
    if (!text.empty()) add(TokenKind::kData, text);
    advance(tag - pos_ + 2 + (sign == '-' || sign == '+' ? 1 : 0));
    at_line_begin_ = false;
    if (kind == '#') return comment();
    return kind == '{' ? inside(TokenKind::kVariableBegin) : block();
  }

  Status comment() {
    const size_t end = source_.find("#}", pos_);
    if (end == std::string::npos) return error("comment without end");
    // The sign belongs to the end, unless it is the begin's own: "{#-#}".
    const char sign = end > pos_ ? source_[end - 1] : '\0';
    advance(end + 2 - pos_);
    finish_tag(sign == '-' ? '-' : sign == '+' ? '+' : '\0', true);
    return {};
  }

  // What follows a tag: "-" strips all blanks, otherwise trim_blocks takes one newline.
  void finish_tag(char sign, bool trims_newline) {
    const size_t begin = pos_;
    if (sign == '-') {
      advance_blanks();
    } else if (trims_newline && sign != '+' && at(0) == '\n') {
      advance(1);
    }
    at_line_begin_ = pos_ > begin && source_[pos_ - 1] == '\n';
  }

  Status block() {
    const std::string_view name = python_lstrip(rest());
    if (name.starts_with("raw") && (name.size() == 3 || !(is_name_start(name[3]) || is_digit(name[3])))) return raw();
    return inside(TokenKind::kBlockBegin);
  }

  Status raw() {
    advance_blanks();
    advance(3);
    advance_blanks();
    // Unlike other tags this one keeps the newline behind it, and knows no '+'.
    const bool strips = at(0) == '-';
    if (!rest().substr(strips ? 1 : 0).starts_with("%}")) return error("expected the end of the raw tag");
    advance(strips ? 3 : 2);
    finish_tag(strips ? '-' : '\0', false);
    const size_t body = pos_;
    for (size_t tag = source_.find("{%", pos_); tag != std::string::npos; tag = source_.find("{%", tag + 2)) {
      const size_t sign_pos = tag + 2;
      const bool has_sign = sign_pos < source_.size() && (source_[sign_pos] == '-' || source_[sign_pos] == '+');
      std::string_view after = python_lstrip(std::string_view(source_).substr(sign_pos + (has_sign ? 1 : 0)));
      if (!after.starts_with("endraw")) continue;
      std::string_view text = std::string_view(source_).substr(body, tag - body);
      if (has_sign && source_[sign_pos] == '-') {
        text = python_rstrip(text);
      } else if (!has_sign) {
        const size_t line_begin = text.rfind('\n') + 1;  // npos + 1 == 0
        if ((line_begin > 0 || at_line_begin_) && python_lstrip(text.substr(line_begin)).empty()) {
          text = text.substr(0, line_begin);
        }
      }
      if (!text.empty()) add(TokenKind::kData, text);
      advance(source_.size() - after.size() + 6 - pos_);
      advance_blanks();
      HADAL_ASSIGN_OR_RETURN(const bool is_closed, tag_end(TokenKind::kBlockEnd));
      if (!is_closed) return error("expected the end of the endraw tag");
      return {};
    }
    return error("raw without endraw");
  }

  // Consumes "%}", "-%}", "}}", ... if it is next.
  Expected<bool> tag_end(TokenKind end) {
    const bool is_block = end == TokenKind::kBlockEnd;
    const std::string_view closing = is_block ? "%}" : "}}";
    const char sign = at(0) == '-' || (is_block && at(0) == '+') ? at(0) : '\0';
    if (!rest().substr(sign ? 1 : 0).starts_with(closing)) return false;
    advance((sign ? 1 : 0) + 2);
    finish_tag(sign, is_block);
    return true;
  }

  Status inside(TokenKind begin) {
    const TokenKind end = begin == TokenKind::kBlockBegin ? TokenKind::kBlockEnd : TokenKind::kVariableEnd;
    add(begin, "");
    open_.clear();
    while (true) {
      advance_blanks();
      if (pos_ == source_.size()) return error("tag without end");
      if (open_.empty()) {
        const int line = line_;
        HADAL_ASSIGN_OR_RETURN(const bool is_end, tag_end(end));
        if (is_end) {
          tokens_.push_back({end, "", Value(), line});
          return {};
        }
      }
      HADAL_RETURN_IF_ERROR(expression_token());
    }
  }

  Status expression_token() {
    const char c = at(0);
    if (is_digit(c)) return number();
    if (c == '\'' || c == '"') return string();
    if (is_name_start(c)) {
      size_t length = 1;
      while (is_name_start(at(length)) || is_digit(at(length))) ++length;
      add(TokenKind::kName, rest().substr(0, length));
      advance(length);
      return {};
    }
    for (const std::string_view op : kOperators) {
      if (!rest().starts_with(op)) continue;
      HADAL_RETURN_IF_ERROR(balance(op[0]));
      add(TokenKind::kOperator, op);
      advance(op.size());
      return {};
    }
    return error("unexpected \"{}\"", rest().substr(0, std::max<size_t>(decode_utf8(rest()).num_bytes, 1)));
  }

  Status balance(char c) {
    if (c == '(' || c == '[' || c == '{') {
      open_ += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (open_.empty() || open_.back() != c) return error("unexpected \"{}\"", c);
      open_.pop_back();
    }
    return {};
  }

  size_t num_digits(size_t offset) const {
    size_t count = 0;
    while (is_digit(at(offset + count)) ||
           (at(offset + count) == '_' && count > 0 && is_digit(at(offset + count + 1)))) {
      ++count;
    }
    return count;
  }

  Status number() {
    if (at(0) == '0' && (is_name_start(at(1)))) return error("only decimal numbers are supported");
    const size_t whole = num_digits(0);
    size_t length = whole;
    // "a.0.1" indexes twice; "1.x" is an attribute.
    const bool after_dot =
        !tokens_.empty() && tokens_.back().text == "." && tokens_.back().kind == TokenKind::kOperator;
    if (!after_dot) {
      if (at(length) == '.' && is_digit(at(length + 1))) length += 1 + num_digits(length + 1);
      if (at(length) == 'e' || at(length) == 'E') {
        const size_t sign = at(length + 1) == '+' || at(length + 1) == '-' ? 1 : 0;
        if (is_digit(at(length + 1 + sign))) length += 1 + sign + num_digits(length + 1 + sign);
      }
    }
    std::string digits(rest().substr(0, length));
    std::erase(digits, '_');
    const bool is_float = length > whole;
    Token token{is_float ? TokenKind::kFloat : TokenKind::kInteger, digits, Value(), line_};
    if (is_float) {
      double value = 0;
      const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (parsed.ec != std::errc()) return error("number {} out of range", digits);
      token.number = Value(value);
    } else {
      uint64_t value = 0;
      const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (parsed.ec != std::errc()) return error("number {} out of range", digits);
      token.number = Value(Integer{value});
    }
    tokens_.push_back(std::move(token));
    advance(length);
    return {};
  }

  Status string() {
    const char quote = at(0);
    const int line = line_;
    std::string value;
    size_t i = 1;
    while (at(i) != quote) {
      if (pos_ + i >= source_.size()) return error("string without end");
      if (at(i) == '\\') {
        HADAL_ASSIGN_OR_RETURN(const size_t length, escape(i, value));
        i += length;
      } else {
        value += at(i++);
      }
    }
    advance(i + 1);
    tokens_.push_back({TokenKind::kString, std::move(value), Value(), line});
    return {};
  }

  // Python's string escapes. Returns the length of the escape at `offset`; unknown ones stay as written.
  Expected<size_t> escape(size_t offset, std::string& value) const {
    constexpr std::string_view kLetters = "ntr\\'\"abfv";
    constexpr std::string_view kMeanings = "\n\t\r\\'\"\a\b\f\v";
    const char c = at(offset + 1);
    if (const size_t letter = kLetters.find(c); letter != std::string_view::npos && c != '\0') {
      value += kMeanings[letter];
      return size_t{2};
    }
    if (c == '\n') return size_t{2};
    const size_t num_hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (num_hex > 0) return code_point_escape(offset + 2, num_hex, 16, 2 + num_hex, value);
    if (c >= '0' && c <= '7') {
      size_t num_octal = 1;
      while (num_octal < 3 && at(offset + 1 + num_octal) >= '0' && at(offset + 1 + num_octal) <= '7') ++num_octal;
      return code_point_escape(offset + 1, num_octal, 8, 1 + num_octal, value);
    }
    if (c == 'N') return error("\\N escapes are not supported");
    value += '\\';
    return size_t{1};
  }

  Expected<size_t> code_point_escape(size_t offset, size_t num_digits, int base, size_t length,
                                     std::string& value) const {
    const std::string_view digits = rest().substr(std::min(offset, rest().size()), num_digits);
    uint32_t code_point = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), code_point, base);
    const bool is_complete = digits.size() == num_digits && parsed.ptr == digits.data() + digits.size();
    const bool is_surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    if (!is_complete || parsed.ec != std::errc() || code_point > 0x10FFFF || is_surrogate) {
      return error("broken escape in a string");
    }
    append_utf8(value, code_point);
    return length;
  }

  const std::string source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool at_line_begin_ = true;
  std::string open_;  // closing brackets that are due, innermost last
  std::vector<Token> tokens_;
};

}  // namespace

Expected<std::vector<Token>> tokenize(std::string_view source) {
  if (find_invalid_utf8(source) != std::string_view::npos) {
    return make_error(ErrorCode::kInvalidArgument, "the source is not valid UTF-8");
  }
  return Lexer(normalize_newlines(source)).run();
}

}  // namespace hadal::jinja
