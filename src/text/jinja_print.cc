#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/utf8.h"
#include "text/jinja_value.h"

namespace hadal::jinja {
namespace {

// Characters that Python's repr of a string escapes with a letter.
struct ShortEscape {
  char byte, letter;
};
constexpr ShortEscape kReprEscapes[] = {{'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}, {'\\', '\\'}};
constexpr ShortEscape kJsonEscapes[] = {{'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}, {'\\', '\\'},
                                        {'"', '"'},  {'\b', 'b'}, {'\f', 'f'}};

template <size_t N>
char short_escape(const ShortEscape (&table)[N], char byte) {
  for (const ShortEscape& escape : table) {
    if (escape.byte == byte) return escape.letter;
  }
  return '\0';
}

void append_escaped_utf16(std::string& out, char32_t code_point) {
  if (code_point < 0x10000) {
    out += fmt::format("\\u{:04x}", static_cast<uint32_t>(code_point));
    return;
  }
  const uint32_t offset = static_cast<uint32_t>(code_point) - 0x10000;
  out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (offset >> 10), 0xDC00 + (offset & 0x3FF));
}

void print_json_string(std::string_view text, bool ensure_ascii, std::string& out) {
  out += '"';
  while (!text.empty()) {
    const char byte = text.front();
    if (const char letter = short_escape(kJsonEscapes, byte)) {
      out += '\\';
      out += letter;
    } else if (static_cast<uint8_t>(byte) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<uint8_t>(byte));
    } else if (static_cast<uint8_t>(byte) < 0x80 || !ensure_ascii) {
      out += byte;
    } else {
      const Utf8Step step = decode_utf8(text);
      append_escaped_utf16(out, step.kind == Utf8Step::kValid ? step.code_point : kReplacementCharacter);
      text.remove_prefix(step.num_bytes);
      continue;
    }
    text.remove_prefix(1);
  }
  out += '"';
}

void print_string_repr(const std::string& text, std::string& out) {
  const char quote = text.find('\'') != std::string::npos && text.find('"') == std::string::npos ? '"' : '\'';
  out += quote;
  for (const char byte : text) {
    if (const char letter = short_escape(kReprEscapes, byte)) {
      out += '\\';
      out += letter;
    } else if (byte == quote) {
      out += '\\';
      out += quote;
    } else if (static_cast<uint8_t>(byte) < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", static_cast<uint8_t>(byte));
    } else {
      out += byte;
    }
  }
  out += quote;
}

class JsonPrinter {
 public:
  JsonPrinter(const JsonStyle& style, std::string& out, Budget& budget) : style_(style), out_(out), budget_(budget) {}

  Status print(const Value& value, int level) {
    HADAL_RETURN_IF_ERROR(budget_.spend_steps(1));
    const size_t before = out_.size();
    switch (value.kind()) {
      case Value::Kind::kNone:
        out_ += "null";
        break;
      case Value::Kind::kBool:
        out_ += value.as_bool() ? "true" : "false";
        break;
      case Value::Kind::kInteger:
        out_ += integer_text(value.as_integer());
        break;
      case Value::Kind::kFloat:
        print_float(value.as_double());
        break;
      case Value::Kind::kString:
        print_json_string(value.as_string(), style_.ensure_ascii, out_);
        break;
      case Value::Kind::kList:
        return print_list(value.as_list(), level);
      case Value::Kind::kDict:
        return print_dict(value.as_dict(), level);
      default:
        return template_error("Object of type {} is not JSON serializable", type_name(value));
    }
    return budget_.spend_bytes(out_.size() - before);
  }

 private:
  void print_float(double value) {
    if (std::isfinite(value)) {
      out_ += float_text(value);
    } else {
      out_ += std::isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity";
    }
  }

  Status new_line(int level) {
    if (!style_.is_indented) return {};
    out_ += '\n';
    for (int i = 0; i < level; ++i) out_ += style_.indent;
    return budget_.spend_bytes(1 + static_cast<size_t>(level) * style_.indent.size());
  }

  Status print_list(const ListData& list, int level) {
    if (list.items.empty()) {
      out_ += "[]";
      return {};
    }
    out_ += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      HADAL_RETURN_IF_ERROR(new_line(level + 1));
      HADAL_RETURN_IF_ERROR(print(list.items[i], level + 1));
    }
    HADAL_RETURN_IF_ERROR(new_line(level));
    out_ += ']';
    return budget_.spend_bytes(2 + list.items.size() * style_.item_separator.size());
  }

  Status print_dict(const DictData& dict, int level) {
    if (dict.items.empty()) {
      out_ += "{}";
      return {};
    }
    std::vector<const std::pair<std::string, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(), [](const auto* a, const auto* b) { return a->first < b->first; });
    }
    out_ += '{';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      HADAL_RETURN_IF_ERROR(new_line(level + 1));
      print_json_string(items[i]->first, style_.ensure_ascii, out_);
      out_ += style_.key_separator;
      HADAL_RETURN_IF_ERROR(
          budget_.spend_bytes(items[i]->first.size() + style_.item_separator.size() + style_.key_separator.size()));
      HADAL_RETURN_IF_ERROR(print(items[i]->second, level + 1));
    }
    HADAL_RETURN_IF_ERROR(new_line(level));
    out_ += '}';
    return {};
  }

  const JsonStyle& style_;
  std::string& out_;
  Budget& budget_;
};

Status print_list_repr(const ListData& list, std::string& out, Budget& budget) {
  out += list.is_tuple ? '(' : '[';
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out += ", ";
    HADAL_RETURN_IF_ERROR(print_repr(list.items[i], out, budget));
  }
  if (list.is_tuple && list.items.size() == 1) out += ',';
  out += list.is_tuple ? ')' : ']';
  return {};
}

Status print_dict_repr(const DictData& dict, std::string& out, Budget& budget) {
  out += '{';
  bool is_first = true;
  for (const auto& [key, value] : dict.items) {
    if (!is_first) out += ", ";
    is_first = false;
    print_string_repr(key, out);
    out += ": ";
    HADAL_RETURN_IF_ERROR(print_repr(value, out, budget));
  }
  out += '}';
  return {};
}

}  // namespace

std::string integer_text(Integer value) {
  return value < 0 ? fmt::format("{}", static_cast<int64_t>(value)) : fmt::format("{}", static_cast<uint64_t>(value));
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  // "d.ddde+XX" with the shortest digits.
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  std::string_view text(buffer, static_cast<size_t>(end - buffer));
  std::string result;
  if (text.front() == '-') {
    result = "-";
    text.remove_prefix(1);
  }
  const size_t e = text.find('e');
  std::string digits(text.substr(0, 1));
  if (e > 2) digits += text.substr(2, e - 2);
  int exponent = 0;
  const bool is_negative = text[e + 1] == '-';
  std::from_chars(text.data() + e + 2, text.data() + text.size(), exponent);
  if (is_negative) exponent = -exponent;
  const int num_digits = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    result += digits[0];
    if (num_digits > 1) result += "." + digits.substr(1);
    return result + fmt::format("e{}{:02d}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return result + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (num_digits <= exponent + 1) {
    return result + digits + std::string(static_cast<size_t>(exponent + 1 - num_digits), '0') + ".0";
  }
  return result + digits.substr(0, exponent + 1) + "." + digits.substr(exponent + 1);
}

Status print(const Value& value, std::string& out, Budget& budget) {
  if (value.is_undefined()) return {};
  if (!value.is_string()) return print_repr(value, out, budget);
  out += value.as_string();
  return budget.spend_bytes(value.as_string().size());
}

Status print_repr(const Value& value, std::string& out, Budget& budget) {
  HADAL_RETURN_IF_ERROR(budget.spend_steps(1));
  const size_t before = out.size();
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      out += "Undefined";
      break;
    case Value::Kind::kNone:
      out += "None";
      break;
    case Value::Kind::kBool:
      out += value.as_bool() ? "True" : "False";
      break;
    case Value::Kind::kInteger:
      out += integer_text(value.as_integer());
      break;
    case Value::Kind::kFloat:
      out += float_text(value.as_double());
      break;
    case Value::Kind::kString:
      print_string_repr(value.as_string(), out);
      break;
    case Value::Kind::kList:
      return print_list_repr(value.as_list(), out, budget);
    case Value::Kind::kDict:
      return print_dict_repr(value.as_dict(), out, budget);
    default:
      out += fmt::format("<{}>", type_name(value));
  }
  return budget.spend_bytes(out.size() - before);
}

Expected<std::string> to_text(const Value& value, Budget& budget) {
  std::string text;
  HADAL_RETURN_IF_ERROR(print(value, text, budget));
  return text;
}

Status print_json(const Value& value, const JsonStyle& style, std::string& out, Budget& budget) {
  return JsonPrinter(style, out, budget).print(value, 0);
}

}  // namespace hadal::jinja
