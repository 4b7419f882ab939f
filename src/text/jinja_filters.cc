#include "text/jinja_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/names.h"
#include "text/jinja_sequences.h"
#include "text/jinja_strings.h"
#include "text/python_text.h"

namespace hadal::jinja {
namespace {

using Kind = Value::Kind;

// The text of a filter's input; numbers and the like are printed, as Jinja's soft_str does.
Expected<std::string> input_text(const Value& input, Runtime& runtime) { return to_text(input, runtime.budget); }

// ---- tojson

Expected<Value> filter_tojson(const Value& input, const Arguments& arguments, Runtime& runtime) {
  JsonStyle style;
  if (const Value* ensure_ascii = arguments.get(0, "ensure_ascii")) style.ensure_ascii = is_true(*ensure_ascii);
  if (const Value* indent = arguments.get(1, "indent"); indent && !indent->is_none()) {
    style.is_indented = true;
    style.item_separator.assign(1, ',');
    if (indent->is_string()) {
      style.indent = indent->as_string();
    } else if (indent->is_integral() && indent->as_integer() <= 64) {
      style.indent.assign(static_cast<size_t>(std::max<Integer>(indent->as_integer(), 0)), ' ');
    } else {
      return template_error("tojson: indent must be a string or a number up to 64");
    }
  }
  if (const Value* separators = arguments.get(2, "separators"); separators && !separators->is_none()) {
    const bool is_pair = separators->is(Kind::kList) && separators->as_list().items.size() == 2;
    if (!is_pair || !separators->as_list().items[0].is_string() || !separators->as_list().items[1].is_string()) {
      return template_error("tojson: separators must be two strings");
    }
    style.item_separator = separators->as_list().items[0].as_string();
    style.key_separator = separators->as_list().items[1].as_string();
  }
  if (const Value* sort_keys = arguments.get(3, "sort_keys")) style.sort_keys = is_true(*sort_keys);
  std::string text;
  HADAL_RETURN_IF_ERROR(print_json(input, style, text, runtime.budget));
  return Value(std::move(text));
}

// ---- numbers

Expected<Value> filter_abs(const Value& input, const Arguments&, Runtime& runtime) {
  if (!input.is_number()) return template_error("bad operand type for abs(): '{}'", type_name(input));
  return arithmetic("*", Value(input.as_double() < 0 ? -1 : 1), input, runtime.budget);
}

Expected<Value> filter_int(const Value& input, const Arguments& arguments, Runtime&) {
  if (input.is_undefined()) return template_error("{}", input.undefined_message());
  const Value* fallback = arguments.get(0, "default");
  const Value otherwise = fallback ? *fallback : Value(0);
  if (input.is_integral()) return Value(input.as_integer());
  double value = 0;
  if (input.is(Kind::kFloat)) {
    value = input.as_double();
  } else if (input.is_string()) {
    const std::string_view text = python_strip(input.as_string());
    int64_t whole = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), whole);
    if (!text.empty() && parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) {
      return Value(Integer{whole});
    }
    const auto parsed_float = std::from_chars(text.data(), text.data() + text.size(), value);
    if (parsed_float.ec != std::errc() || parsed_float.ptr != text.data() + text.size()) return otherwise;
  } else {
    return otherwise;
  }
  if (!(std::abs(value) < 9e18)) return otherwise;
  return Value(Integer{static_cast<int64_t>(value)});
}

Expected<Value> filter_float(const Value& input, const Arguments& arguments, Runtime&) {
  if (input.is_undefined()) return template_error("{}", input.undefined_message());
  if (input.is_number()) return Value(input.as_double());
  const Value* fallback = arguments.get(0, "default");
  const Value otherwise = fallback ? *fallback : Value(0.0);
  if (!input.is_string()) return otherwise;
  const std::string_view text = python_strip(input.as_string());
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() ? Value(value) : otherwise;
}

// ---- text

Expected<Value> filter_string(const Value& input, const Arguments&, Runtime& runtime) {
  if (input.is_string()) return input;
  HADAL_ASSIGN_OR_RETURN(std::string text, input_text(input, runtime));
  return Value(std::move(text));
}

Expected<Value> filter_trim(const Value& input, const Arguments& arguments, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, input_text(input, runtime));
  const Value* chars = arguments.get(0, "chars");
  return strip(text, chars ? *chars : Value(), StripSide::kBoth);
}

Expected<Value> filter_default(const Value& input, const Arguments& arguments, Runtime&) {
  const Value* replaces_false = arguments.get(1, "boolean");
  const bool is_missing = input.is_undefined() || (replaces_false && is_true(*replaces_false) && !is_true(input));
  if (!is_missing) return input;
  const Value* fallback = arguments.get(0, "default_value");
  return fallback ? *fallback : Value("");
}

template <LetterCase letter_case>
Expected<Value> filter_case(const Value& input, const Arguments&, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, input_text(input, runtime));
  HADAL_ASSIGN_OR_RETURN(std::string changed, change_case(text, letter_case));
  return Value(std::move(changed));
}

Expected<Value> filter_replace(const Value& input, const Arguments& arguments, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, input_text(input, runtime));
  const Value* count = arguments.get(2, "count");
  const Value* from = arguments.get(0, "old");
  const Value* to = arguments.get(1, "new");
  if (!from || !to) return template_error("replace needs two strings");
  return replace(text, *from, *to, count ? *count : Value(), runtime);
}

Expected<Value> filter_indent(const Value& input, const Arguments& arguments, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const std::string text, input_text(input, runtime));
  const Value* width = arguments.get(0, "width");
  const Value* first = arguments.get(1, "first");
  const Value* blank = arguments.get(2, "blank");
  std::string indent(4, ' ');
  if (width && width->is_string()) indent = width->as_string();
  if (width && width->is_integral())
    indent.assign(static_cast<size_t>(std::clamp<Integer>(width->as_integer(), 0, 256)), ' ');
  HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(
      text.size() + indent.size() * (1 + static_cast<size_t>(std::count(text.begin(), text.end(), '\n')))));
  std::string out;
  std::string_view rest = text;
  for (bool is_first = true;; is_first = false) {
    const size_t newline = rest.find('\n');
    const std::string_view line = rest.substr(0, newline);
    const bool wants = is_first ? first && is_true(*first) : !line.empty() || (blank && is_true(*blank));
    if (wants) out += indent;
    out += line;
    if (newline == std::string_view::npos) break;
    out += '\n';
    rest.remove_prefix(newline + 1);
  }
  return Value(std::move(out));
}

const std::vector<FilterEntry>& filters() {
  static const std::vector<FilterEntry> table = {
      {"abs", {}, filter_abs},
      {"capitalize", {}, filter_case<LetterCase::kCapitalized>},
      {"count", {}, filter_length},
      {"d", {"default_value", "boolean"}, filter_default},
      {"default", {"default_value", "boolean"}, filter_default},
      {"dictsort", {"case_sensitive"}, filter_dictsort},
      {"first", {}, filter_first},
      {"float", {"default"}, filter_float},
      {"indent", {"width", "first", "blank"}, filter_indent},
      {"int", {"default"}, filter_int},
      {"items", {}, filter_items},
      {"join", {"d", "attribute"}, filter_join},
      {"last", {}, filter_last},
      {"length", {}, filter_length},
      {"list", {}, filter_list},
      {"lower", {}, filter_case<LetterCase::kLower>},
      {"map", {"*", "attribute", "default"}, filter_map},
      {"reject", {"*"}, filter_reject},
      {"rejectattr", {"*"}, filter_rejectattr},
      {"replace", {"old", "new", "count"}, filter_replace},
      {"reverse", {}, filter_reverse},
      {"safe", {}, filter_string},
      {"select", {"*"}, filter_select},
      {"selectattr", {"*"}, filter_selectattr},
      {"sort", {"reverse", "case_sensitive", "attribute"}, filter_sort},
      {"string", {}, filter_string},
      {"title", {}, filter_case<LetterCase::kTitle>},
      {"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, filter_tojson},
      {"trim", {"chars"}, filter_trim},
      {"unique", {}, filter_unique},
      {"upper", {}, filter_case<LetterCase::kUpper>},
  };
  return table;
}

}  // namespace

const Value* Arguments::keyword(std::string_view name) const {
  for (const auto& [key, value] : keywords) {
    if (key == name) return &value;
  }
  return nullptr;
}

const Value* Arguments::get(size_t position, std::string_view name) const {
  return position < positional.size() ? &positional[position] : keyword(name);
}

const FilterEntry* find_filter(std::string_view name) {
  for (const FilterEntry& entry : filters()) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

std::string filter_suggestion(std::string_view name) {
  std::vector<std::string> names;
  for (const FilterEntry& entry : filters()) names.emplace_back(entry.name);
  const std::string near = closest_name(name, names);
  return near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near);
}

// A first parameter "*" stands for any number of positional arguments.
Status check_arguments(std::string_view what, std::span<const std::string_view> parameters,
                       const Arguments& arguments) {
  const bool is_variadic = !parameters.empty() && parameters[0] == "*";
  if (!is_variadic && arguments.positional.size() > parameters.size()) {
    return template_error("{}: {} arguments, at most {} allowed", what, arguments.positional.size(), parameters.size());
  }
  for (const auto& [name, value] : arguments.keywords) {
    const auto found = std::find(parameters.begin(), parameters.end(), name);
    const size_t position = static_cast<size_t>(found - parameters.begin());
    if (found == parameters.end() || (!is_variadic && position < arguments.positional.size())) {
      return template_error("{}: unexpected argument \"{}\"", what, name);
    }
  }
  return {};
}

}  // namespace hadal::jinja
