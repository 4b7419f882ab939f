// Filters, tests, methods and functions of the template language: tables by name, so that a template that uses an
// unknown one is refused when it is parsed.
#pragma once

#include <ctime>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/jinja_value.h"

namespace hadal::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;

  // The argument at `position`, or the keyword `name`, or nullptr.
  const Value* get(size_t position, std::string_view name) const;
  const Value* keyword(std::string_view name) const;
};

// What the implementations may need of the render.
struct Runtime {
  Budget& budget;
  std::time_t now;
};

struct FilterEntry {
  std::string_view name;
  std::vector<std::string_view> parameters;  // positional order; all may be keywords
  Expected<Value> (*apply)(const Value& input, const Arguments& arguments, Runtime& runtime);
};
const FilterEntry* find_filter(std::string_view name);

struct TestEntry {
  std::string_view name;
  size_t num_arguments;  // after the tested value
  Expected<bool> (*apply)(const Value& input, const Arguments& arguments, Runtime& runtime);
};
const TestEntry* find_test(std::string_view name);

// " (did you mean ...?)" or "".
std::string filter_suggestion(std::string_view name);
std::string test_suggestion(std::string_view name);

// Errors: kInvalidArgument for arguments that the parameters do not allow.
Status check_arguments(std::string_view what, std::span<const std::string_view> parameters, const Arguments& arguments);

// value.name and value[key]; undefined when there is none. Errors: on undefined, on methods that the sandbox refuses.
Expected<Value> get_attribute(const Value& value, const std::string& name);
Expected<Value> get_item(const Value& value, const Value& key, Runtime& runtime);
Expected<Value> slice(const Value& value, const Value& start, const Value& stop, const Value& step, Runtime& runtime);

Expected<Value> call_method(const MethodData& method, const Arguments& arguments, Runtime& runtime);
// All but namespace(), whose objects belong to the interpreter.
Expected<Value> call_function(Function function, const Arguments& arguments, Runtime& runtime);

}  // namespace hadal::jinja
