#include "text/jinja_sequences.h"

#include <algorithm>
#include <charconv>

#include "text/jinja_strings.h"

namespace hadal::jinja {
namespace {

using Kind = Value::Kind;

Expected<Value> to_list(std::vector<Value> items, Runtime& runtime) {
  return make_list(std::move(items), false, runtime.budget);
}

Expected<std::string> text_argument(const Value* value, std::string_view fallback) {
  if (!value) return std::string(fallback);
  if (!value->is_string()) return template_error("expected a string argument, got {}", type_name(*value));
  return value->as_string();
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

Expected<Value> pair_key(const Value& item, const Value*, Runtime&) { return item.as_list().items[0]; }

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

}  // namespace

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

Expected<Value> filter_select(const Value& input, const Arguments& arguments, Runtime& runtime) {
  return select_items(input, arguments, runtime, false, true);
}

Expected<Value> filter_reject(const Value& input, const Arguments& arguments, Runtime& runtime) {
  return select_items(input, arguments, runtime, false, false);
}

Expected<Value> filter_selectattr(const Value& input, const Arguments& arguments, Runtime& runtime) {
  return select_items(input, arguments, runtime, true, true);
}

Expected<Value> filter_rejectattr(const Value& input, const Arguments& arguments, Runtime& runtime) {
  return select_items(input, arguments, runtime, true, false);
}

}  // namespace hadal::jinja
