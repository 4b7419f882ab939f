#include "text/jinja_methods.h"

#include <algorithm>
#include <array>

#include "text/jinja_filters.h"
#include "text/jinja_strings.h"
#include "text/python_text.h"

namespace hadal::jinja {
namespace {

using Kind = Value::Kind;

constexpr Integer kMaxRangeItems = 100'000;  // as the reference's sandbox

Expected<const std::string*> string_argument(const Arguments& arguments, size_t position, std::string_view name) {
  const Value* value = arguments.get(position, name);
  if (!value || !value->is_string()) {
    return template_error("expected a string as argument {}, got {}", position + 1, value ? type_name(*value) : "none");
  }
  return &value->as_string();
}

// ---- str

Expected<Value> split_at_blanks(std::string_view text, Integer limit, Runtime& runtime) {
  std::vector<Value> parts;
  text = python_lstrip(text);
  while (!text.empty() && static_cast<Integer>(parts.size()) < limit) {
    size_t end = 0;
    while (end < text.size() && python_lstrip(text.substr(end)).size() == text.size() - end) ++end;
    parts.emplace_back(text.substr(0, end));
    text = python_lstrip(text.substr(end));
  }
  if (!text.empty()) parts.emplace_back(python_rstrip(text));
  return make_list(std::move(parts), false, runtime.budget);
}

Expected<Value> split_text(std::string_view text, const Arguments& arguments, Runtime& runtime, bool from_right) {
  const Value* separator = arguments.get(0, "sep");
  const Value* max_splits = arguments.get(1, "maxsplit");
  if (max_splits && !max_splits->is_integral()) return template_error("maxsplit must be an integer");
  const Integer limit = !max_splits || max_splits->as_integer() < 0 ? kMaxInteger : max_splits->as_integer();
  HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(text.size()));
  if (!separator || separator->is_none()) {
    if (from_right) return template_error("rsplit() needs a separator");
    return split_at_blanks(text, limit, runtime);
  }
  HADAL_ASSIGN_OR_RETURN(const std::string* mark, string_argument(arguments, 0, "sep"));
  if (mark->empty()) return template_error("empty separator");
  std::vector<Value> parts;
  while (static_cast<Integer>(parts.size()) < limit) {
    const size_t found = from_right ? text.rfind(*mark) : text.find(*mark);
    if (found == std::string_view::npos) break;
    parts.emplace_back(from_right ? text.substr(found + mark->size()) : text.substr(0, found));
    text = from_right ? text.substr(0, found) : text.substr(found + mark->size());
    HADAL_RETURN_IF_ERROR(runtime.budget.spend_steps(1));
  }
  parts.emplace_back(text);
  if (from_right) std::reverse(parts.begin(), parts.end());
  return make_list(std::move(parts), false, runtime.budget);
}

Expected<Value> str_split(const Value& self, const Arguments& arguments, Runtime& runtime) {
  return split_text(self.as_string(), arguments, runtime, false);
}
Expected<Value> str_rsplit(const Value& self, const Arguments& arguments, Runtime& runtime) {
  return split_text(self.as_string(), arguments, runtime, true);
}

Expected<Value> str_splitlines(const Value& self, const Arguments&, Runtime& runtime) {
  std::string_view text = self.as_string();
  HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(text.size()));
  std::vector<Value> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of("\r\n\v\f\x1c\x1d\x1e"), text.size());
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
    text.remove_prefix(text.starts_with("\r\n") ? 2 : text.empty() ? 0 : 1);
  }
  return make_list(std::move(lines), false, runtime.budget);
}

template <StripSide side>
Expected<Value> str_strip(const Value& self, const Arguments& arguments, Runtime& runtime) {
  HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(self.as_string().size()));
  const Value* chars = arguments.get(0, "chars");
  return strip(self.as_string(), chars ? *chars : Value(), side);
}

// startswith and endswith take a string or a tuple of them.
template <bool at_start>
Expected<Value> str_has_affix(const Value& self, const Arguments& arguments, Runtime&) {
  const std::string& text = self.as_string();
  const auto matches = [&](const Value& affix) {
    return affix.is_string() && (at_start ? text.starts_with(affix.as_string()) : text.ends_with(affix.as_string()));
  };
  const Value* affix = arguments.get(0, "prefix");
  if (affix && affix->is(Kind::kList) && affix->as_list().is_tuple) {
    const auto& items = affix->as_list().items;
    return Value(std::any_of(items.begin(), items.end(), matches));
  }
  HADAL_RETURN_IF_ERROR(string_argument(arguments, 0, "prefix"));
  return Value(matches(*affix));
}

template <bool at_start>
Expected<Value> str_remove_affix(const Value& self, const Arguments& arguments, Runtime&) {
  HADAL_ASSIGN_OR_RETURN(const std::string* affix, string_argument(arguments, 0, ""));
  std::string_view text = self.as_string();
  if (at_start && text.starts_with(*affix)) text.remove_prefix(affix->size());
  if (!at_start && text.ends_with(*affix)) text.remove_suffix(affix->size());
  return Value(text);
}

template <bool from_right>
Expected<Value> str_find(const Value& self, const Arguments& arguments, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const std::string* needle, string_argument(arguments, 0, "sub"));
  const std::string& text = self.as_string();
  HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(text.size()));
  const size_t found = from_right ? text.rfind(*needle) : text.find(*needle);
  if (found == std::string::npos) return Value(-1);
  return Value(num_characters(std::string_view(text).substr(0, found)));
}

Expected<Value> str_count(const Value& self, const Arguments& arguments, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const std::string* needle, string_argument(arguments, 0, "sub"));
  if (needle->empty()) return template_error("count() of the empty string is not supported");
  const std::string& text = self.as_string();
  HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(text.size()));
  size_t count = 0;
  for (size_t at = text.find(*needle); at != std::string::npos; at = text.find(*needle, at + needle->size())) ++count;
  return Value(count);
}

Expected<Value> str_replace(const Value& self, const Arguments& arguments, Runtime& runtime) {
  const Value* from = arguments.get(0, "old");
  const Value* to = arguments.get(1, "new");
  const Value* count = arguments.get(2, "count");
  if (!from || !to) return template_error("replace expected at least 2 arguments");
  return replace(self.as_string(), *from, *to, count ? *count : Value(), runtime);
}

template <LetterCase letter_case>
Expected<Value> str_case(const Value& self, const Arguments&, Runtime& runtime) {
  HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(self.as_string().size()));
  HADAL_ASSIGN_OR_RETURN(std::string text, change_case(self.as_string(), letter_case));
  return Value(std::move(text));
}

Expected<Value> str_join(const Value& self, const Arguments& arguments, Runtime& runtime) {
  const Value* values = arguments.get(0, "iterable");
  if (!values) return template_error("join() takes exactly one argument");
  HADAL_ASSIGN_OR_RETURN(const ListRef list, iterate(*values, runtime.budget));
  std::string text;
  for (size_t i = 0; i < list->items.size(); ++i) {
    const Value& item = list->items[i];
    if (!item.is_string()) {
      return template_error("sequence item {}: expected str instance, {} found", i, type_name(item));
    }
    if (i > 0) text += self.as_string();
    text += item.as_string();
    HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(self.as_string().size() + item.as_string().size()));
  }
  return Value(std::move(text));
}

// ---- list

Expected<Value> list_count(const Value& self, const Arguments& arguments, Runtime& runtime) {
  if (arguments.positional.size() != 1) return template_error("count() takes exactly one argument");
  size_t count = 0;
  for (const Value& item : self.as_list().items) {
    HADAL_ASSIGN_OR_RETURN(const bool same, equal(item, arguments.positional[0], runtime.budget));
    count += same;
  }
  return Value(count);
}

Expected<Value> list_index(const Value& self, const Arguments& arguments, Runtime& runtime) {
  if (arguments.positional.size() != 1) return template_error("index() takes exactly one argument");
  const auto& items = self.as_list().items;
  for (size_t i = 0; i < items.size(); ++i) {
    HADAL_ASSIGN_OR_RETURN(const bool same, equal(items[i], arguments.positional[0], runtime.budget));
    if (same) return Value(i);
  }
  return template_error("value is not in list");
}

Expected<Value> list_copy(const Value& self, const Arguments&, Runtime&) { return self; }

// ---- dict

Expected<Value> dict_get(const Value& self, const Arguments& arguments, Runtime&) {
  if (arguments.positional.empty()) return template_error("get expected at least 1 argument, got 0");
  const Value& key = arguments.positional[0];
  const Value* found = key.is_string() ? self.as_dict().find(key.as_string()) : nullptr;
  if (found) return *found;
  return arguments.positional.size() > 1 ? arguments.positional[1] : Value();
}

Expected<Value> dict_keys(const Value& self, const Arguments&, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const ListRef keys, iterate(self, runtime.budget));
  return Value(keys);
}

Expected<Value> dict_values(const Value& self, const Arguments&, Runtime& runtime) {
  std::vector<Value> values;
  for (const auto& [key, value] : self.as_dict().items) values.push_back(value);
  return make_list(std::move(values), false, runtime.budget);
}

Expected<Value> dict_pairs(const Value& self, const Arguments&, Runtime& runtime) {
  return dict_items(self.as_dict(), runtime);
}

struct MethodEntry {
  Kind kind;
  std::string_view name;
  std::vector<std::string_view> parameters;
  Expected<Value> (*apply)(const Value& self, const Arguments& arguments, Runtime& runtime);  // null: refused
};

const std::vector<MethodEntry>& methods() {
  static const std::vector<MethodEntry> table = {
      {Kind::kString, "capitalize", {}, str_case<LetterCase::kCapitalized>},
      {Kind::kString, "count", {"sub"}, str_count},
      {Kind::kString, "endswith", {"prefix"}, str_has_affix<false>},
      {Kind::kString, "find", {"sub"}, str_find<false>},
      {Kind::kString, "join", {"iterable"}, str_join},
      {Kind::kString, "lower", {}, str_case<LetterCase::kLower>},
      {Kind::kString, "lstrip", {"chars"}, str_strip<StripSide::kLeft>},
      {Kind::kString, "removeprefix", {""}, str_remove_affix<true>},
      {Kind::kString, "removesuffix", {""}, str_remove_affix<false>},
      {Kind::kString, "replace", {"old", "new", "count"}, str_replace},
      {Kind::kString, "rfind", {"sub"}, str_find<true>},
      {Kind::kString, "rsplit", {"sep", "maxsplit"}, str_rsplit},
      {Kind::kString, "rstrip", {"chars"}, str_strip<StripSide::kRight>},
      {Kind::kString, "split", {"sep", "maxsplit"}, str_split},
      {Kind::kString, "splitlines", {}, str_splitlines},
      {Kind::kString, "startswith", {"prefix"}, str_has_affix<true>},
      {Kind::kString, "strip", {"chars"}, str_strip<StripSide::kBoth>},
      {Kind::kString, "title", {}, str_case<LetterCase::kTitle>},
      {Kind::kString, "upper", {}, str_case<LetterCase::kUpper>},
      {Kind::kList, "append", {}, nullptr},
      {Kind::kList, "clear", {}, nullptr},
      {Kind::kList, "copy", {}, list_copy},
      {Kind::kList, "count", {"value"}, list_count},
      {Kind::kList, "extend", {}, nullptr},
      {Kind::kList, "index", {"value"}, list_index},
      {Kind::kList, "insert", {}, nullptr},
      {Kind::kList, "pop", {}, nullptr},
      {Kind::kList, "remove", {}, nullptr},
      {Kind::kList, "reverse", {}, nullptr},
      {Kind::kList, "sort", {}, nullptr},
      {Kind::kDict, "clear", {}, nullptr},
      {Kind::kDict, "copy", {}, list_copy},
      {Kind::kDict, "get", {"key", "default"}, dict_get},
      {Kind::kDict, "items", {}, dict_pairs},
      {Kind::kDict, "keys", {}, dict_keys},
      {Kind::kDict, "pop", {}, nullptr},
      {Kind::kDict, "popitem", {}, nullptr},
      {Kind::kDict, "setdefault", {}, nullptr},
      {Kind::kDict, "update", {}, nullptr},
      {Kind::kDict, "values", {}, dict_values},
  };
  return table;
}

const MethodEntry* find_method(Kind kind, std::string_view name) {
  for (const MethodEntry& entry : methods()) {
    if (entry.kind == kind && entry.name == name) return &entry;
  }
  return nullptr;
}

// ---- functions

Expected<Value> make_range(const Arguments& arguments, Runtime& runtime) {
  const auto& given = arguments.positional;
  if (given.empty() || given.size() > 3) return template_error("range expected 1 to 3 arguments, got {}", given.size());
  for (const Value& value : given) {
    if (value.is_undefined()) return template_error("{}", value.undefined_message());
    if (!value.is_integral()) {
      return template_error("'{}' object cannot be interpreted as an integer", type_name(value));
    }
  }
  const Integer start = given.size() > 1 ? given[0].as_integer() : Integer{0};
  const Integer stop = given.size() > 1 ? given[1].as_integer() : given[0].as_integer();
  const Integer step = given.size() > 2 ? given[2].as_integer() : Integer{1};
  if (step == 0) return template_error("range() arg 3 must not be zero");
  const Integer span = step > 0 ? stop - start : start - stop;
  const Integer stride = step > 0 ? step : -step;
  const Integer count = span <= 0 ? Integer{0} : (span + stride - 1) / stride;
  if (count > kMaxRangeItems) {
    return template_error("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
  }
  std::vector<Value> items;
  for (Integer i = 0; i < count; ++i) items.emplace_back(start + i * step);
  return make_list(std::move(items), false, runtime.budget);
}

Expected<Value> format_now(const Arguments& arguments, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const std::string* format, string_argument(arguments, 0, "format"));
  if (format->empty()) return Value("");
  std::tm local{};
  if (!localtime_r(&runtime.now, &local)) return template_error("strftime_now: no local time");
  std::array<char, 512> buffer{};
  const size_t length = std::strftime(buffer.data(), buffer.size(), format->c_str(), &local);
  if (length == 0) return template_error("strftime_now: the result is empty or over {} bytes", buffer.size() - 1);
  return Value(std::string_view(buffer.data(), length));
}

}  // namespace

MethodAccess method_access(const Value& value, std::string_view name) {
  const MethodEntry* entry = find_method(value.kind(), name);
  if (!entry) return MethodAccess::kNone;
  return entry->apply ? MethodAccess::kAllowed : MethodAccess::kRefused;
}

Expected<Value> call_method(const MethodData& method, const Arguments& arguments, Runtime& runtime) {
  const MethodEntry* entry = find_method(method.self.kind(), method.name);
  HADAL_RETURN_IF_ERROR(check_arguments(method.name, entry->parameters, arguments));
  return entry->apply(method.self, arguments, runtime);
}

Expected<Value> call_function(Function function, const Arguments& arguments, Runtime& runtime) {
  switch (function) {
    case Function::kRaiseException: {
      if (arguments.positional.size() != 1) return template_error("raise_exception() takes one argument");
      HADAL_ASSIGN_OR_RETURN(const std::string message, to_text(arguments.positional[0], runtime.budget));
      return template_error("{}", message);
    }
    case Function::kStrftimeNow:
      return format_now(arguments, runtime);
    case Function::kRange:
      return make_range(arguments, runtime);
    case Function::kDict:
      if (!arguments.positional.empty()) return template_error("dict() takes keywords only");
      return make_dict(arguments.keywords, runtime.budget);
    case Function::kNamespace:
      break;
  }
  return template_error("not a function");
}

}  // namespace hadal::jinja
