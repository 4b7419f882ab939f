// The `is` tests.
#include "base/names.h"
#include "text/jinja_filters.h"

namespace hadal::jinja {
namespace {

using Kind = Value::Kind;

template <Kind kind>
Expected<bool> is_kind(const Value& value, const Arguments&, Runtime&) {
  return value.is(kind);
}

Expected<bool> is_defined(const Value& value, const Arguments&, Runtime&) { return !value.is_undefined(); }
Expected<bool> is_number(const Value& value, const Arguments&, Runtime&) { return value.is_number(); }
Expected<bool> is_sequence(const Value& value, const Arguments&, Runtime&) {
  return value.is_string() || value.is(Kind::kList) || value.is(Kind::kDict) || value.is_undefined();
}
Expected<bool> is_callable(const Value& value, const Arguments&, Runtime&) { return value.is_callable(); }

template <bool expected>
Expected<bool> is_boolean_value(const Value& value, const Arguments&, Runtime&) {
  return value.is(Kind::kBool) && value.as_bool() == expected;
}

Expected<bool> is_equal(const Value& value, const Arguments& arguments, Runtime& runtime) {
  return equal(value, arguments.positional[0], runtime.budget);
}
Expected<bool> is_unequal(const Value& value, const Arguments& arguments, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const bool same, is_equal(value, arguments, runtime));
  return !same;
}
Expected<bool> is_less(const Value& value, const Arguments& arguments, Runtime&) {
  return less(value, arguments.positional[0], "<");
}
Expected<bool> is_greater(const Value& value, const Arguments& arguments, Runtime&) {
  return less(arguments.positional[0], value, ">");
}
Expected<bool> is_at_most(const Value& value, const Arguments& arguments, Runtime&) {
  HADAL_ASSIGN_OR_RETURN(const bool is_above, less(arguments.positional[0], value, "<="));
  return !is_above;
}
Expected<bool> is_at_least(const Value& value, const Arguments& arguments, Runtime&) {
  HADAL_ASSIGN_OR_RETURN(const bool is_below, less(value, arguments.positional[0], ">="));
  return !is_below;
}
Expected<bool> is_in(const Value& value, const Arguments& arguments, Runtime& runtime) {
  return contains(arguments.positional[0], value, runtime.budget);
}

Expected<bool> is_divisible(const Value& value, const Value& divisor, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const Value rest, arithmetic("%", value, divisor, runtime.budget));
  return !is_true(rest);
}
Expected<bool> is_divisible_by(const Value& value, const Arguments& arguments, Runtime& runtime) {
  return is_divisible(value, arguments.positional[0], runtime);
}
Expected<bool> is_even(const Value& value, const Arguments&, Runtime& runtime) {
  return is_divisible(value, Value(2), runtime);
}
Expected<bool> is_odd(const Value& value, const Arguments&, Runtime& runtime) {
  HADAL_ASSIGN_OR_RETURN(const bool even, is_divisible(value, Value(2), runtime));
  return !even;
}

const std::vector<TestEntry>& tests() {
  static const std::vector<TestEntry> table = {
      {"==", 1, is_equal},
      {"boolean", 0, is_kind<Kind::kBool>},
      {"callable", 0, is_callable},
      {"defined", 0, is_defined},
      {"divisibleby", 1, is_divisible_by},
      {"eq", 1, is_equal},
      {"equalto", 1, is_equal},
      {"even", 0, is_even},
      {"false", 0, is_boolean_value<false>},
      {"float", 0, is_kind<Kind::kFloat>},
      {"ge", 1, is_at_least},
      {"greaterthan", 1, is_greater},
      {"gt", 1, is_greater},
      {"in", 1, is_in},
      {"integer", 0, is_kind<Kind::kInteger>},
      {"iterable", 0, is_sequence},
      {"le", 1, is_at_most},
      {"lessthan", 1, is_less},
      {"lt", 1, is_less},
      {"mapping", 0, is_kind<Kind::kDict>},
      {"ne", 1, is_unequal},
      {"none", 0, is_kind<Kind::kNone>},
      {"number", 0, is_number},
      {"odd", 0, is_odd},
      {"sequence", 0, is_sequence},
      {"string", 0, is_kind<Kind::kString>},
      {"true", 0, is_boolean_value<true>},
      {"undefined", 0, is_kind<Kind::kUndefined>},
  };
  return table;
}

}  // namespace

const TestEntry* find_test(std::string_view name) {
  for (const TestEntry& entry : tests()) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

std::string test_suggestion(std::string_view name) {
  std::vector<std::string> names;
  for (const TestEntry& entry : tests()) names.emplace_back(entry.name);
  const std::string near = closest_name(name, names);
  return near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near);
}

}  // namespace hadal::jinja
