#include "text/jinja_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/names.h"
#include "text/jinja_strings.h"
#include "text/python_text.h"

namespace hadal::jinja {
namespace {

using Kind = Value::Kind;

Expected<Value> to_list(std::vector<Value> items, Runtime& runtime) {
  return make_list(std::move(items), false, runtime.budget);
}

// The text of a filter's input; numbers and the like are printed, as Jinja's soft_str does.
Expected<std::string> input_text(const Value& input, Runtime& runtime) { return to_text(input, runtime.budget); }

Expected<std::string> text_argument(const Value* value, std::string_view fallback) {
  if (!value) return std::string(fallback);
  if (!value->is_string()) return template_error("expected a string argument, got {}", type_name(*value));
  return value->as_string();
}

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
  return input.as_double() < 0 ? arithmetic("*", Value(-1), input, runtime.budget) : Expected<Value>(input);
}

Expected<Value> filter_int(const Value& input, const Arguments& arguments, Runtime&) {
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
  if (input.is_number()) return Value(input.as_double());
  const Value* fallback = arguments.get(0, "default");
  const Value otherwise = fallback ? *fallback : Value(0.0);
  if (!input.is_string()) return otherwise;
  const std::string_view text = python_strip(input.as_string());
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  return parsed.ec == std::errc() && parsed.ptr == text.data() + text.size() ? Value(value) : otherwise;
}

// ---- sequences

Expected<Value> filter_length(const Value& input, const Arguments&, Runtime& runtime) {
  if (input.is_string()) return Value(num_characters(input.as_string()));
  if (input.is(Kind::kDict)) return Value(input.as_dict().items.size());
  if (!input.is(Kind::kList) && !input.is_undefined()) {
    return template_error("object of type '{}' has no len()", type_name(input));
  }
  HADAL_ASSIGN_OR_RETURN(const ListRef list, iterate(input, runtime.budget));
  return Value(list->items.size());
}

Expected<Value> filter_list(const Value& input, const Arguments&, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const ListRef list, iterate(input, runtime.budget));
  return to_list(list->items, runtime);
}

Expected<Value> filter_first(const Value& input, const Arguments&, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const ListRef list, iterate(input, runtime.budget));
  if (list->items.empty()) return Value(undefined("No first item, sequence was empty."));
  return list->items.front();
}

Expected<Value> filter_last(const Value& input, const Arguments&, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const ListRef list, iterate(input, runtime.budget));
  if (list->items.empty()) return Value(undefined("No last item, sequence was empty."));
  return list->items.back();
}

Expected<Value> filter_reverse(const Value& input, const Arguments&, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const ListRef list, iterate(input, runtime.budget));
  std::vector<Value> items(list->items.rbegin(), list->items.rend());
  if (!input.is_string()) return to_list(std::move(items), runtime);
  std::string text;
  for (const Value& item : items) text += item.as_string();
  return Value(std::move(text));
}

Expected<Value> filter_join(const Value& input, const Arguments& arguments, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const std::string separator, text_argument(arguments.get(0, "d"), ""));
  const Value* attribute = arguments.get(1, "attribute");
  HADAL_ASSIGN_OR_RETURN(const ListRef list, iterate(input, runtime.budget));
  std::string text;
  for (size_t i = 0; i < list->items.size(); ++i) {
    if (i > 0) {
      text += separator;
      HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(separator.size()));
    }
    Value item = list->items[i];
    if (attribute) {
      HADAL_ASSIGN_OR_RETURN(item, get_item(item, *attribute, runtime));
    }
    HADAL_RETURN_IF_ERROR(print(item, text, runtime.budget));
  }
  return Value(std::move(text));
}

Expected<Value> filter_items(const Value& input, const Arguments&, Runtime& runtime) {
  if (input.is_undefined()) return to_list({}, runtime);
  if (!input.is(Kind::kDict)) return template_error("Can only get item pairs from a mapping.");
  return dict_items(input.as_dict(), runtime);
}

// A stable sort that can fail; merge sort keeps the number of comparisons bounded.
Expected<std::vector<Value>> sorted(std::vector<Value> items, bool ignores_case, Runtime& runtime,
                                    Expected<Value> (*key)(const Value&, const Value*, Runtime&), const Value* how) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) {
    HADAL_ASSIGN_OR_RETURN(Value sort_key, key(item, how, runtime));
    if (ignores_case && sort_key.is_string()) {
      HADAL_ASSIGN_OR_RETURN(std::string lower, change_case(sort_key.as_string(), LetterCase::kLower));
      sort_key = Value(std::move(lower));
    }
    keyed.emplace_back(std::move(sort_key), std::move(item));
  }
  HADAL_RETURN_IF_ERROR(runtime.budget.spend_steps(keyed.size() * 20));
  Status failure;
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    auto result = less(a.first, b.first, "<");
    if (!result && failure) failure = forward_error(std::move(result));
    return result && *result;
  });
  HADAL_RETURN_IF_ERROR(failure);
  items.clear();
  for (auto& [sort_key, item] : keyed) items.push_back(std::move(item));
  return items;
}

Expected<Value> sort_key_of(const Value& item, const Value* attribute, Runtime& runtime) {
  return attribute && !attribute->is_none() ? get_item(item, *attribute, runtime) : Expected<Value>(item);
}

Expected<Value> filter_sort(const Value& input, const Arguments& arguments, Runtime& runtime) {
  const Value* reverse = arguments.get(0, "reverse");
  const Value* case_sensitive = arguments.get(1, "case_sensitive");
  HADAL_ASSIGN_OR_RETURN(const ListRef list, iterate(input, runtime.budget));
  const bool is_reversed = reverse && is_true(*reverse);
  std::vector<Value> items = list->items;
  if (is_reversed) std::reverse(items.begin(), items.end());  // keeps equal items in their order
  HADAL_ASSIGN_OR_RETURN(items, sorted(std::move(items), !(case_sensitive && is_true(*case_sensitive)), runtime,
                                       sort_key_of, arguments.get(2, "attribute")));
  if (is_reversed) std::reverse(items.begin(), items.end());
  return to_list(std::move(items), runtime);
}

Expected<Value> pair_key(const Value& item, const Value*, Runtime&) { return item.as_list().items[0]; }

Expected<Value> filter_dictsort(const Value& input, const Arguments& arguments, Runtime& runtime) {
  if (!input.is(Kind::kDict)) return template_error("dictsort needs a dict, got {}", type_name(input));
  const Value* case_sensitive = arguments.get(0, "case_sensitive");
  HADAL_ASSIGN_OR_RETURN(const Value pairs, dict_items(input.as_dict(), runtime));
  HADAL_ASSIGN_OR_RETURN(
      std::vector<Value> items,
      sorted(pairs.as_list().items, !(case_sensitive && is_true(*case_sensitive)), runtime, pair_key, nullptr));
  return to_list(std::move(items), runtime);
}

Expected<Value> filter_unique(const Value& input, const Arguments&, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const ListRef list, iterate(input, runtime.budget));
  std::vector<Value> items;
  for (const Value& item : list->items) {
    bool is_new = true;
    for (const Value& seen : items) {
      HADAL_ASSIGN_OR_RETURN(const bool same, equal(seen, item, runtime.budget));
      if (same) is_new = false;
    }
    if (is_new) items.push_back(item);
  }
  return to_list(std::move(items), runtime);
}

// ---- map and the select family

// "a.b.0": attributes and indices, from left to right.
Expected<Value> get_path(Value value, const Value& path, Runtime& runtime) {
  if (!path.is_string()) return get_item(value, path, runtime);
  std::string_view rest = path.as_string();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string part(rest.substr(0, dot));
    int64_t index = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = !part.empty() && parsed.ec == std::errc() && parsed.ptr == part.data() + part.size();
    HADAL_ASSIGN_OR_RETURN(value, get_item(value, is_index ? Value(Integer{index}) : Value(part), runtime));
    if (dot == std::string_view::npos) return value;
    rest.remove_prefix(dot + 1);
  }
}

// Arguments after the first `count` positional ones.
Arguments rest_of(const Arguments& arguments, size_t count) {
  Arguments rest;
  rest.keywords = arguments.keywords;
  const auto& positional = arguments.positional;
  rest.positional.assign(positional.begin() + static_cast<std::ptrdiff_t>(std::min(count, positional.size())),
                         positional.end());
  return rest;
}

Expected<Value> filter_map(const Value& input, const Arguments& arguments, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const ListRef list, iterate(input, runtime.budget));
  std::vector<Value> items;
  if (const Value* attribute = arguments.keyword("attribute")) {
    const Value* fallback = arguments.keyword("default");
    for (const Value& item : list->items) {
      HADAL_ASSIGN_OR_RETURN(Value value, get_path(item, *attribute, runtime));
      items.push_back(value.is_undefined() && fallback ? *fallback : std::move(value));
    }
    return to_list(std::move(items), runtime);
  }
  if (arguments.positional.empty() || !arguments.positional[0].is_string()) {
    return template_error("map needs attribute= or the name of a filter");
  }
  const std::string& name = arguments.positional[0].as_string();
  const FilterEntry* filter = find_filter(name);
  if (!filter || name == "map") return template_error("map: no filter named \"{}\"", name);
  const Arguments rest = rest_of(arguments, 1);
  HADAL_RETURN_IF_ERROR(check_arguments(name, filter->parameters, rest));
  for (const Value& item : list->items) {
    HADAL_ASSIGN_OR_RETURN(Value value, filter->apply(item, rest, runtime));
    items.push_back(std::move(value));
  }
  return to_list(std::move(items), runtime);
}

Expected<Value> select_items(const Value& input, const Arguments& arguments, Runtime& runtime, bool by_attribute,
                             bool keeps) {
  const size_t num_own = by_attribute ? 1 : 0;
  const auto& positional = arguments.positional;
  if (positional.size() < num_own) return template_error("missing name of an attribute");
  const TestEntry* test = nullptr;
  if (positional.size() > num_own) {
    const Value& name = positional[num_own];
    test = name.is_string() ? find_test(name.as_string()) : nullptr;
    if (!test) return template_error("no such test in select or reject");
    if (positional.size() - num_own - 1 != test->num_arguments) {
      return template_error("test \"{}\" takes {} arguments", name.as_string(), test->num_arguments);
    }
  }
  const Arguments rest = rest_of(arguments, num_own + 1);
  HADAL_ASSIGN_OR_RETURN(const ListRef list, iterate(input, runtime.budget));
  std::vector<Value> items;
  for (const Value& item : list->items) {
    Value value = item;
    if (by_attribute) {
      HADAL_ASSIGN_OR_RETURN(value, get_path(item, positional[0], runtime));
    }
    bool passes = is_true(value);
    if (test) {
      HADAL_ASSIGN_OR_RETURN(passes, test->apply(value, rest, runtime));
    }
    if (passes == keeps) items.push_back(item);
  }
  return to_list(std::move(items), runtime);
}

template <bool by_attribute, bool keeps>
Expected<Value> filter_select(const Value& input, const Arguments& arguments, Runtime& runtime) {
  return select_items(input, arguments, runtime, by_attribute, keeps);
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
      {"reject", {"*"}, filter_select<false, false>},
      {"rejectattr", {"*"}, filter_select<true, false>},
      {"replace", {"old", "new", "count"}, filter_replace},
      {"reverse", {}, filter_reverse},
      {"safe", {}, filter_string},
      {"select", {"*"}, filter_select<false, true>},
      {"selectattr", {"*"}, filter_select<true, true>},
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
