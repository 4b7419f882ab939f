// Attributes, items and slices.
#include <algorithm>

#include "base/utf8.h"
#include "text/jinja_filters.h"
#include "text/jinja_methods.h"
#include "text/jinja_strings.h"

namespace hadal::jinja {
namespace {

using Kind = Value::Kind;

// Jinja's wording for missing things: "'dict object' has no attribute 'x'".
std::string object_repr(const Value& value) {
  return value.is_none() ? "None" : fmt::format("{} object", type_name(value));
}

Undefined no_attribute(const Value& value, const std::string& name) {
  return undefined(fmt::format("'{}' has no attribute '{}'", object_repr(value), name));
}

Value loop_attribute(const LoopData& loop, const Value& value, const std::string& name) {
  const auto& items = loop.items->items;
  const size_t index = loop.index0, length = items.size();
  if (name == "index0") return Value(index);
  if (name == "index") return Value(index + 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == length);
  if (name == "length") return Value(length);
  if (name == "revindex") return Value(length - index);
  if (name == "revindex0") return Value(length - index - 1);
  if (name == "depth0") return Value(loop.depth0);
  if (name == "depth") return Value(loop.depth0 + 1);
  if (name == "previtem") return index > 0 ? items[index - 1] : Value(undefined("there is no previous item"));
  if (name == "nextitem") return index + 1 < length ? items[index + 1] : Value(undefined("there is no next item"));
  return Value(no_attribute(value, name));
}

// The text from character number `first`, `count` characters long.
std::string_view characters(std::string_view text, size_t first, size_t count) {
  while (first-- > 0) text.remove_prefix(decode_utf8(text).num_bytes);
  size_t num_bytes = 0;
  while (count-- > 0) num_bytes += decode_utf8(text.substr(num_bytes)).num_bytes;
  return text.substr(0, num_bytes);
}

// Python's slice indices: clamped start, stop and step over `length` items.
struct Range {
  Integer start, stop, step;
};
Expected<Range> resolve_slice(const Value& start, const Value& stop, const Value& step, size_t num_items) {
  for (const Value* part : {&start, &stop, &step}) {
    if (!part->is_none() && !part->is_integral()) return template_error("slice indices must be integers or None");
  }
  Range range{0, 0, step.is_none() ? Integer{1} : step.as_integer()};
  if (range.step == 0) return template_error("slice step cannot be zero");
  const Integer length = static_cast<Integer>(num_items);
  const bool is_backward = range.step < 0;
  const auto clamp = [&](const Value& bound, Integer otherwise) -> Integer {
    if (bound.is_none()) return otherwise;
    Integer index = bound.as_integer();
    if (index < 0) index += length;
    return std::clamp<Integer>(index, is_backward ? -1 : 0, is_backward ? length - 1 : length);
  };
  range.start = clamp(start, is_backward ? length - 1 : 0);
  range.stop = clamp(stop, is_backward ? -1 : length);
  return range;
}

}  // namespace

Expected<Value> get_attribute(const Value& value, const std::string& name) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return template_error("{}", value.undefined_message());
    case Kind::kNamespace:
      for (const auto& [key, item] : value.as_namespace().attributes) {
        if (key == name) return item;
      }
      return Value(no_attribute(value, name));
    case Kind::kLoop:
      return loop_attribute(value.as_loop(), value, name);
    default:
      break;
  }
  switch (method_access(value, name)) {
    case MethodAccess::kAllowed:
      return Value(std::make_shared<const MethodData>(MethodData{value, name}));
    case MethodAccess::kRefused:
      return template_error("access to attribute '{}' of '{}' object is unsafe.", name, type_name(value));
    case MethodAccess::kNone:
      break;
  }
  if (value.is(Kind::kDict)) {
    if (const Value* item = value.as_dict().find(name)) return *item;
  }
  return Value(no_attribute(value, name));
}

Expected<Value> get_item(const Value& value, const Value& key, Runtime& runtime) {
  if (value.is_undefined()) return template_error("{}", value.undefined_message());
  if (value.is(Kind::kDict) && key.is_string()) {
    if (const Value* item = value.as_dict().find(key.as_string())) return *item;
  }
  if (key.is_string()) return get_attribute(value, key.as_string());
  const bool is_text = value.is_string();
  if (key.is_integral() && (is_text || value.is(Kind::kList))) {
    if (is_text) HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(value.as_string().size()));
    const size_t length = is_text ? num_characters(value.as_string()) : value.as_list().items.size();
    Integer index = key.as_integer();
    if (index < 0) index += static_cast<Integer>(length);
    if (index >= 0 && index < static_cast<Integer>(length)) {
      const size_t at = static_cast<size_t>(index);
      return is_text ? Value(characters(value.as_string(), at, 1)) : value.as_list().items[at];
    }
  }
  HADAL_ASSIGN_OR_RETURN(const std::string shown, to_text(key, runtime.budget));
  return Value(undefined(fmt::format("{} has no element {}", object_repr(value), shown)));
}

Expected<Value> slice(const Value& value, const Value& start, const Value& stop, const Value& step, Runtime& runtime) {
  if (value.is_undefined()) return template_error("{}", value.undefined_message());
  if (!value.is_string() && !value.is(Kind::kList)) {
    return Value(undefined(fmt::format("{} has no element slice", object_repr(value))));
  }
  const size_t length = value.is_string() ? num_characters(value.as_string()) : value.as_list().items.size();
  HADAL_ASSIGN_OR_RETURN(const Range range, resolve_slice(start, stop, step, length));
  if (value.is_string() && range.step == 1) {
    HADAL_RETURN_IF_ERROR(runtime.budget.spend_bytes(value.as_string().size()));
    if (range.start >= range.stop) return Value("");
    return Value(
        characters(value.as_string(), static_cast<size_t>(range.start), static_cast<size_t>(range.stop - range.start)));
  }
  HADAL_ASSIGN_OR_RETURN(const ListRef all, iterate(value, runtime.budget));
  std::vector<Value> items;
  std::string text;
  for (Integer i = range.start; range.step > 0 ? i < range.stop : i > range.stop; i += range.step) {
    const Value& item = all->items[static_cast<size_t>(i)];
    if (value.is_string()) {
      text += item.as_string();
    } else {
      items.push_back(item);
    }
  }
  if (value.is_string()) return Value(std::move(text));
  return make_list(std::move(items), value.as_list().is_tuple, runtime.budget);
}

}  // namespace hadal::jinja
