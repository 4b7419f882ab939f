// Values of the template language: Python's None, bool, int, float, str, list, tuple and dict as templates see them.
// Lists and dicts never change once built (the sandbox of the reference refuses mutation), so there are no cycles.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"

namespace hadal::jinja {

struct MacroNode;
struct ListData;
struct DictData;
struct MethodData;
struct NamespaceData;
struct LoopData;

// All of int64 and uint64, as JSON has them; arithmetic that leaves this range is an error.
__extension__ using Integer = __int128;
inline constexpr Integer kMinInteger = INT64_MIN;
inline constexpr Integer kMaxInteger = UINT64_MAX;

// A missing variable, key or item. `message` is what an operation on it complains about.
struct Undefined {
  std::shared_ptr<const std::string> message;
};
struct None {};

enum class Function { kNamespace, kRaiseException, kStrftimeNow, kRange, kDict };

using StringRef = std::shared_ptr<const std::string>;
using ListRef = std::shared_ptr<const ListData>;
using DictRef = std::shared_ptr<const DictData>;

class Value {
 public:
  // The order of the variant's alternatives.
  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInteger,
    kFloat,
    kString,
    kList,  // and tuple
    kDict,
    kNamespace,
    kLoop,
    kMethod,
    kFunction,
    kMacro,
  };

  Value() : data_(None{}) {}
  Value(Undefined value) : data_(std::move(value)) {}
  Value(bool value) : data_(value) {}
  Value(Integer value) : data_(value) {}
  Value(int value) : data_(Integer{value}) {}
  Value(size_t value) : data_(Integer{value}) {}
  Value(double value) : data_(value) {}
  Value(std::string value) : data_(std::make_shared<const std::string>(std::move(value))) {}
  Value(std::string_view value) : Value(std::string(value)) {}
  Value(const char* value) : Value(std::string(value)) {}
  Value(StringRef value) : data_(std::move(value)) {}
  Value(ListRef value) : data_(std::move(value)) {}
  Value(DictRef value) : data_(std::move(value)) {}
  Value(NamespaceData* value) : data_(value) {}  // owned by the interpreter of this render
  Value(std::shared_ptr<const LoopData> value) : data_(std::move(value)) {}
  Value(std::shared_ptr<const MethodData> value) : data_(std::move(value)) {}
  Value(Function value) : data_(value) {}
  Value(const MacroNode* value) : data_(value) {}

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind kind) const { return this->kind() == kind; }
  bool is_undefined() const { return is(Kind::kUndefined); }
  bool is_none() const { return is(Kind::kNone); }
  bool is_string() const { return is(Kind::kString); }
  bool is_number() const { return is(Kind::kInteger) || is(Kind::kFloat) || is(Kind::kBool); }
  bool is_integral() const { return is(Kind::kInteger) || is(Kind::kBool); }
  bool is_callable() const { return kind() >= Kind::kMethod; }

  // Each requires the kind.
  const std::string& undefined_message() const { return *std::get<Undefined>(data_).message; }
  bool as_bool() const { return std::get<bool>(data_); }
  Integer as_integer() const { return is(Kind::kBool) ? Integer{as_bool()} : std::get<Integer>(data_); }
  double as_double() const { return is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(as_integer()); }
  const std::string& as_string() const { return *std::get<StringRef>(data_); }
  const ListData& as_list() const { return *std::get<ListRef>(data_); }
  const ListRef& list_ref() const { return std::get<ListRef>(data_); }
  const DictData& as_dict() const { return *std::get<DictRef>(data_); }
  NamespaceData& as_namespace() const { return *std::get<NamespaceData*>(data_); }
  const LoopData& as_loop() const { return *std::get<std::shared_ptr<const LoopData>>(data_); }
  const MethodData& as_method() const { return *std::get<std::shared_ptr<const MethodData>>(data_); }
  Function as_function() const { return std::get<Function>(data_); }
  const MacroNode& as_macro() const { return *std::get<const MacroNode*>(data_); }

 private:
  std::variant<Undefined, None, bool, Integer, double, StringRef, ListRef, DictRef, NamespaceData*,
               std::shared_ptr<const LoopData>, std::shared_ptr<const MethodData>, Function, const MacroNode*>
      data_;
};

struct ListData {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;  // levels of lists and dicts, this one included
};

// Keys are strings, in insertion order.
struct DictData {
  std::vector<std::pair<std::string, Value>> items;
  std::unordered_map<std::string_view, size_t> index;  // filled only for large dicts
  int depth = 1;

  const Value* find(std::string_view key) const;
};

struct NamespaceData {
  std::vector<std::pair<std::string, Value>> attributes;
};

// The `loop` variable: one object per for statement, which moves on.
struct LoopData {
  ListRef items;
  size_t index0 = 0;
  int depth0 = 0;  // nesting of for statements
};

struct MethodData {
  Value self;
  std::string name;
};

// Levels of nesting that a value may have: printing and comparing recurse.
inline constexpr int kMaxValueDepth = 100;

// No single text may be longer.
inline constexpr size_t kMaxTextBytes = size_t{64} << 20;

// Limits of one render, shared by everything that does work in proportion to a value.
class Budget {
 public:
  Budget(int64_t max_steps, int64_t max_bytes) : steps_left_(max_steps), bytes_left_(max_bytes) {}
  // Errors: kResourceExhausted. To be asked before the work is done or the text is built.
  Status spend_steps(size_t count);
  Status spend_bytes(size_t count);

 private:
  int64_t steps_left_, bytes_left_;
};

// Errors of the template or its input, as Python words them.
template <typename... Args>
tl::unexpected<Error> template_error(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

Undefined undefined(std::string message);

// Errors: kResourceExhausted beyond kMaxValueDepth.
Expected<Value> make_list(std::vector<Value> items, bool is_tuple, Budget& budget);
Expected<Value> make_dict(std::vector<std::pair<std::string, Value>> items, Budget& budget);

// "str", "NoneType", "list": as in Python's type errors.
std::string type_name(const Value& value);
bool is_true(const Value& value);
Expected<bool> equal(const Value& a, const Value& b, Budget& budget);
// a < b for numbers and for strings. Errors: other types.
Expected<bool> less(const Value& a, const Value& b, std::string_view op);
// `needle in haystack`.
Expected<bool> contains(const Value& haystack, const Value& needle, Budget& budget);
// What a for loop visits: list items, dict keys, characters; nothing for undefined.
Expected<ListRef> iterate(const Value& value, Budget& budget);
// The arithmetic operators "+", "-", "*", "/", "//", "%", "**".
Expected<Value> arithmetic(std::string_view op, const Value& a, const Value& b, Budget& budget);

// str(value), appended: what `{{ value }}` prints.
Status print(const Value& value, std::string& out, Budget& budget);
// repr(value), appended.
Status print_repr(const Value& value, std::string& out, Budget& budget);
Expected<std::string> to_text(const Value& value, Budget& budget);
std::string integer_text(Integer value);
// Python's repr of a float: shortest digits that round-trip.
std::string float_text(double value);

struct JsonStyle {
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  std::string indent;  // one level; used when is_indented
  bool is_indented = false;
  bool ensure_ascii = false;
  bool sort_keys = false;
};
// json.dumps(value), appended.
Status print_json(const Value& value, const JsonStyle& style, std::string& out, Budget& budget);

}  // namespace hadal::jinja
