#include "text/jinja_value.h"

#include <algorithm>
#include <cmath>

#include "base/utf8.h"

namespace hadal::jinja {
namespace {

constexpr size_t kMinIndexedItems = 16;

const char* object_name(Value::Kind kind) {
  switch (kind) {
    case Value::Kind::kUndefined:
      return "Undefined";
    case Value::Kind::kNone:
      return "NoneType";
    case Value::Kind::kBool:
      return "bool";
    case Value::Kind::kInteger:
      return "int";
    case Value::Kind::kFloat:
      return "float";
    case Value::Kind::kString:
      return "str";
    case Value::Kind::kList:
      return "list";
    case Value::Kind::kDict:
      return "dict";
    case Value::Kind::kNamespace:
      return "Namespace";
    case Value::Kind::kLoop:
      return "LoopContext";
    case Value::Kind::kMethod:
      return "builtin_function_or_method";
    case Value::Kind::kFunction:
      return "function";
    case Value::Kind::kMacro:
      return "Macro";
  }
  return "object";
}

int depth_of(const Value& value) {
  if (value.is(Value::Kind::kList)) return value.as_list().depth;
  if (value.is(Value::Kind::kDict)) return value.as_dict().depth;
  return 0;
}

Expected<int> depth_above(int deepest_item) {
  if (deepest_item < kMaxValueDepth) return deepest_item + 1;
  return make_error(ErrorCode::kResourceExhausted, "value nested deeper than {} levels", kMaxValueDepth);
}

Expected<bool> equal_lists(const ListData& a, const ListData& b, Budget& budget) {
  if (a.is_tuple != b.is_tuple || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    HADAL_ASSIGN_OR_RETURN(const bool same, equal(a.items[i], b.items[i], budget));
    if (!same) return false;
  }
  return true;
}

Expected<bool> equal_dicts(const DictData& a, const DictData& b, Budget& budget) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const Value* other = b.find(key);
    if (!other) return false;
    HADAL_ASSIGN_OR_RETURN(const bool same, equal(value, *other, budget));
    if (!same) return false;
  }
  return true;
}

}  // namespace

const Value* DictData::find(std::string_view key) const {
  if (!index.empty()) {
    const auto found = index.find(key);
    return found == index.end() ? nullptr : &items[found->second].second;
  }
  for (const auto& [name, value] : items) {
    if (name == key) return &value;
  }
  return nullptr;
}

Status Budget::spend_steps(size_t count) {
  steps_left_ -= static_cast<int64_t>(std::min<size_t>(count, INT32_MAX));
  if (steps_left_ >= 0) return {};
  return make_error(ErrorCode::kResourceExhausted, "the template does more work than a render may");
}

Status Budget::spend_bytes(size_t count) {
  bytes_left_ -= static_cast<int64_t>(std::min(count, kMaxTextBytes));
  if (bytes_left_ >= 0 && count <= kMaxTextBytes) return {};
  return make_error(ErrorCode::kResourceExhausted, "the template handles more text than a render may");
}

Undefined undefined(std::string message) { return {std::make_shared<const std::string>(std::move(message))}; }

Expected<Value> make_list(std::vector<Value> items, bool is_tuple, Budget& budget) {
  HADAL_RETURN_IF_ERROR(budget.spend_steps(items.size()));
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, depth_of(item));
  HADAL_ASSIGN_OR_RETURN(const int depth, depth_above(deepest));
  return Value(std::make_shared<const ListData>(ListData{std::move(items), is_tuple, depth}));
}

Expected<Value> make_dict(std::vector<std::pair<std::string, Value>> items, Budget& budget) {
  HADAL_RETURN_IF_ERROR(budget.spend_steps(items.size()));
  int deepest = 0;
  for (const auto& [key, value] : items) deepest = std::max(deepest, depth_of(value));
  HADAL_ASSIGN_OR_RETURN(const int depth, depth_above(deepest));
  auto dict = std::make_shared<DictData>();
  dict->items = std::move(items);
  dict->depth = depth;
  if (dict->items.size() >= kMinIndexedItems) {
    for (size_t i = 0; i < dict->items.size(); ++i) dict->index[dict->items[i].first] = i;
  }
  return Value(DictRef(std::move(dict)));
}

std::string type_name(const Value& value) {
  if (value.is(Value::Kind::kList) && value.as_list().is_tuple) return "tuple";
  return object_name(value.kind());
}

bool is_true(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
    case Value::Kind::kNone:
      return false;
    case Value::Kind::kBool:
    case Value::Kind::kInteger:
      return value.as_integer() != 0;
    case Value::Kind::kFloat:
      return value.as_double() != 0;
    case Value::Kind::kString:
      return !value.as_string().empty();
    case Value::Kind::kList:
      return !value.as_list().items.empty();
    case Value::Kind::kDict:
      return !value.as_dict().items.empty();
    default:
      return true;
  }
}

Expected<bool> equal(const Value& a, const Value& b, Budget& budget) {
  HADAL_RETURN_IF_ERROR(budget.spend_steps(1));
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.as_integer() == b.as_integer();
    return a.as_double() == b.as_double();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kUndefined:
    case Value::Kind::kNone:
      return true;
    case Value::Kind::kString:
      HADAL_RETURN_IF_ERROR(budget.spend_bytes(std::min(a.as_string().size(), b.as_string().size())));
      return a.as_string() == b.as_string();
    case Value::Kind::kList:
      return equal_lists(a.as_list(), b.as_list(), budget);
    case Value::Kind::kDict:
      return equal_dicts(a.as_dict(), b.as_dict(), budget);
    case Value::Kind::kNamespace:
      return &a.as_namespace() == &b.as_namespace();
    case Value::Kind::kLoop:
      return &a.as_loop() == &b.as_loop();
    case Value::Kind::kMacro:
      return &a.as_macro() == &b.as_macro();
    case Value::Kind::kFunction:
      return a.as_function() == b.as_function();
    default:
      return false;
  }
}

Expected<bool> less(const Value& a, const Value& b, std::string_view op) {
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) return template_error("{}", value->undefined_message());
  }
  if (a.is_integral() && b.is_integral()) return a.as_integer() < b.as_integer();
  if (a.is_number() && b.is_number()) return a.as_double() < b.as_double();
  if (a.is_string() && b.is_string()) return a.as_string() < b.as_string();
  return template_error("'{}' not supported between instances of '{}' and '{}'", op, type_name(a), type_name(b));
}

Expected<bool> contains(const Value& haystack, const Value& needle, Budget& budget) {
  switch (haystack.kind()) {
    case Value::Kind::kUndefined:
      return false;
    case Value::Kind::kString:
      if (!needle.is_string()) {
        return template_error("'in <string>' requires string as left operand, not {}", type_name(needle));
      }
      HADAL_RETURN_IF_ERROR(budget.spend_bytes(haystack.as_string().size()));
      return haystack.as_string().find(needle.as_string()) != std::string::npos;
    case Value::Kind::kDict:
      return needle.is_string() && haystack.as_dict().find(needle.as_string()) != nullptr;
    case Value::Kind::kList:
      for (const Value& item : haystack.as_list().items) {
        HADAL_ASSIGN_OR_RETURN(const bool same, equal(item, needle, budget));
        if (same) return true;
      }
      return false;
    default:
      return template_error("argument of type '{}' is not iterable", type_name(haystack));
  }
}

Expected<ListRef> iterate(const Value& value, Budget& budget) {
  ListData list;
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      break;
    case Value::Kind::kList:
      return value.list_ref();
    case Value::Kind::kDict:
      for (const auto& [key, ignored] : value.as_dict().items) list.items.emplace_back(key);
      break;
    case Value::Kind::kString: {
      HADAL_RETURN_IF_ERROR(budget.spend_steps(4 * value.as_string().size()));  // a value for each character
      std::string_view rest = value.as_string();
      while (!rest.empty()) {
        const size_t num_bytes = decode_utf8(rest).num_bytes;
        list.items.emplace_back(rest.substr(0, num_bytes));
        rest.remove_prefix(num_bytes);
      }
      break;
    }
    default:
      return template_error("'{}' object is not iterable", type_name(value));
  }
  HADAL_RETURN_IF_ERROR(budget.spend_steps(list.items.size()));
  return std::make_shared<const ListData>(std::move(list));
}

}  // namespace hadal::jinja
