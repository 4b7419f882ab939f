#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/split_regex.h"

#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/check.h"

namespace hadal {
namespace {

// White_Space, as the inside of a class.
constexpr std::string_view kSpaces =
    R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

constexpr std::string_view kCategories[] = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Cs", "Co", "Cn"};
constexpr std::string_view kScripts[] = {"Arabic", "Armenian", "Bengali", "Cyrillic", "Devanagari", "Georgian",
                                         "Greek",  "Han",      "Hangul",  "Hebrew",   "Hiragana",   "Katakana",
                                         "Khmer",  "Lao",      "Latin",   "Tamil",    "Thai",       "Tibetan"};
constexpr std::string_view kGroups[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};

template <typename Range>
bool contains(const Range& range, std::string_view value) {
  return std::find(std::begin(range), std::end(range), value) != std::end(range);
}

bool is_ascii_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// PCRE2 below 10.40 has no script syntax; its plain name is the script. Later the plain name means script extensions.
std::string script_class(std::string_view script) {
  static const bool has_script_syntax = [] {
    std::array<char, 64> version{};
    pcre2_config(PCRE2_CONFIG_VERSION, version.data());
    char* rest = nullptr;
    const long major = std::strtol(version.data(), &rest, 10);
    const long minor = *rest == '.' ? std::strtol(rest + 1, nullptr, 10) : 0;
    return major > 10 || (major == 10 && minor >= 40);
  }();
  return fmt::format("{{{}{}}}", has_script_syntax ? "sc:" : "", script);
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : rest_(pattern) {}

  Expected<std::string> run() {
    while (!rest_.empty()) HADAL_RETURN_IF_ERROR(step());
    if (in_class_) return unsupported("a class without end");
    return std::move(out_);
  }

 private:
  Status step() {
    const char c = rest_.front();
    if (c == '\\') return escape();
    if (in_class_) return class_char(c);
    switch (c) {
      case '[':
        in_class_ = true;
        take(rest_.starts_with("[^") ? 2 : 1);
        // A leading ']' is a literal in one dialect only.
        return rest_.starts_with(']') ? Status(unsupported("']' first in a class")) : Status();
      case '(':
        return group();
      case '{':
        return repeat();
      case '.':
      case '^':
      case '$':
        return unsupported(fmt::format("'{}'", c));
      default:
        take(1);
        return {};
    }
  }

  Status class_char(char c) {
    if (c == '[') return unsupported("a class inside a class");
    if (rest_.starts_with("&&")) return unsupported("class intersection");
    if (c == ']') in_class_ = false;
    take(1);
    return {};
  }

  Status group() {
    if (!rest_.starts_with("(?") && !rest_.starts_with("(*")) {
      take(1);
      return {};
    }
    for (const std::string_view known : kGroups) {
      if (rest_.starts_with(known)) {
        take(known.size());
        return {};
      }
    }
    return unsupported(fmt::format("group \"{}\"", rest_.substr(0, 4)));
  }

  // {n}, {n,}, {n,m}, not followed by '+', which is possessive in one dialect and a repeat in the other.
  Status repeat() {
    const size_t end = rest_.find('}');
    const std::string_view body = end == std::string_view::npos ? "" : rest_.substr(1, end - 1);
    const bool is_count = !body.empty() && body.front() != ',' &&
                          body.find_first_not_of("0123456789,") == std::string_view::npos &&
                          std::count(body.begin(), body.end(), ',') <= 1;
    if (!is_count || (end + 1 < rest_.size() && rest_[end + 1] == '+')) {
      return unsupported(fmt::format("\"{}\"", rest_.substr(0, 8)));
    }
    take(end + 1);
    return {};
  }

  Status escape() {
    const char c = rest_.size() > 1 ? rest_[1] : '\0';
    switch (c) {
      case 's':
        out_ += in_class_ ? std::string(kSpaces) : fmt::format("[{}]", kSpaces);
        rest_.remove_prefix(2);
        return {};
      case 'S':
        if (in_class_) return unsupported("\\S inside a class");
        out_ += fmt::format("[^{}]", kSpaces);
        rest_.remove_prefix(2);
        return {};
      case 'p':
      case 'P':
        return property();
      case 'r':
      case 'n':
      case 't':
      case 'd':
        take(2);
        return {};
      default:
        if (c == '\0' || is_ascii_alnum(c) || (c & 0x80)) return unsupported(fmt::format("\"{}\"", rest_.substr(0, 2)));
        take(2);
        return {};
    }
  }

  Status property() {
    const size_t end = rest_.find('}');
    if (rest_.size() < 4 || rest_[2] != '{' || end == std::string_view::npos) {
      return unsupported("a property without braces");
    }
    const std::string_view name = rest_.substr(3, end - 3);
    if (contains(kCategories, name)) {
      take(end + 1);
    } else if (contains(kScripts, name)) {
      out_ += rest_.substr(0, 2);
      out_ += script_class(name);
      rest_.remove_prefix(end + 1);
    } else {
      return unsupported(fmt::format("property \"{}\"", name));
    }
    return {};
  }

  void take(size_t count) {
    out_ += rest_.substr(0, count);
    rest_.remove_prefix(count);
  }

  tl::unexpected<Error> unsupported(std::string_view what) const {
    return make_error(ErrorCode::kUnsupported, "split regex: {} is not supported", what);
  }

  std::string_view rest_;
  std::string out_;
  bool in_class_ = false;
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 128> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// Match results and JIT stack of one thread.
class MatchSpace {
 public:
  MatchSpace() : data_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
    HADAL_CHECK(data_ && context_, "out of memory");
    stack_ = pcre2_jit_stack_create(32 << 10, 4 << 20, nullptr);
    if (stack_) pcre2_jit_stack_assign(context_, nullptr, stack_);
  }
  ~MatchSpace() {
    if (stack_) pcre2_jit_stack_free(stack_);
    pcre2_match_context_free(context_);
    pcre2_match_data_free(data_);
  }
  MatchSpace(const MatchSpace&) = delete;
  MatchSpace& operator=(const MatchSpace&) = delete;

  pcre2_match_data* data() { return data_; }
  pcre2_match_context* context() { return context_; }

 private:
  pcre2_match_data* data_;
  pcre2_match_context* context_;
  pcre2_jit_stack* stack_ = nullptr;
};

}  // namespace

Expected<std::string> translate_split_regex(std::string_view pattern) { return Translator(pattern).run(); }

std::string kimi_split_regex() {
  const std::string han = "\\p" + script_class("Han");
  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]] is what is neither other category nor Han; likewise the lower class.
  const std::string upper = R"([^\p{C}\p{Z}\p{P}\p{S}\p{N}\p{Ll})" + han + "]";
  const std::string lower = R"([^\p{C}\p{Z}\p{P}\p{S}\p{N}\p{Lu}\p{Lt})" + han + "]";
  const std::string prefix = R"([^\r\n\p{L}\p{N}]?)";
  const std::string suffix = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?";
  const std::string spaces(kSpaces);
  return "[" + han + "]+|" + prefix + upper + "*" + lower + "+" + suffix + "|" + prefix + upper + "+" + lower + "*" +
         suffix + R"(|\p{N}{1,3}| ?[^)" + spaces + R"(\p{L}\p{N}]+[\r\n]*|[)" + spaces + R"(]*[\r\n]+|[)" + spaces +
         "]+(?![^" + spaces + "])|[" + spaces + "]+";
}

struct SplitRegex::Code {
  pcre2_code* code = nullptr;
  bool has_jit = false;
  ~Code() { pcre2_code_free(code); }
};

Expected<SplitRegex> SplitRegex::compile(const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                             &error, &offset, nullptr);
  if (!code->code) {
    return make_error(ErrorCode::kCorrupt, "split regex, at byte {}: {}", offset, pcre2_message(error));
  }
  uint32_t may_be_empty = 0;
  pcre2_pattern_info(code->code, PCRE2_INFO_MATCHEMPTY, &may_be_empty);
  if (may_be_empty) return make_error(ErrorCode::kUnsupported, "split regex that can match the empty string");
  code->has_jit = pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE) == 0;
  SplitRegex regex;
  regex.code_ = std::move(code);
  return regex;
}

Expected<SplitRegex::Match> SplitRegex::find(std::string_view text, size_t start) const {
  thread_local MatchSpace space;
  const auto match = code_->has_jit ? pcre2_jit_match : pcre2_match;
  const int rc = match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start, PCRE2_NO_UTF_CHECK,
                       space.data(), space.context());
  if (rc == PCRE2_ERROR_NOMATCH) return Match{};
  // 0 means "more groups than room", which is fine: only the whole match is read.
  if (rc < 0) return make_error(ErrorCode::kInternal, "splitting {} bytes: {}", text.size(), pcre2_message(rc));
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(space.data());
  return Match{range[0], range[1]};
}

}  // namespace hadal
