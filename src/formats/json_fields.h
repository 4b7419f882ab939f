// Reads typed, bounded fields out of a JSON object and keeps account of the keys, for the config readers of this
// folder.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

struct IntRange {
  int64_t min;
  int64_t max;
};
struct NumberRange {
  double min;
  double max;
  bool min_is_open = false;  // min itself is refused
};

// Each read_*() does nothing when `value` is null, sets `out` when it fits, and else appends a problem naming `name`,
// what was expected and what was found.
void read_int(const std::string& name, const Json& value, IntRange range, std::optional<int64_t>& out,
              std::vector<Error>& problems);
void read_number(const std::string& name, const Json& value, NumberRange range, std::optional<double>& out,
                 std::vector<Error>& problems);
void read_bool(const std::string& name, const Json& value, std::optional<bool>& out, std::vector<Error>& problems);
void read_string(const std::string& name, const Json& value, std::optional<std::string>& out,
                 std::vector<Error>& problems);
// A list of integers, or one integer where `single_allowed`.
void read_ints(const std::string& name, const Json& value, IntRange range, bool single_allowed,
               std::vector<int64_t>& out, std::vector<Error>& problems);

// One row of a reader's table: which key goes to which member of T, and within which bounds.
template <typename T>
struct JsonField {
  std::string name;
  std::function<void(const std::string& name, const Json& value, T& out, std::vector<Error>& problems)> read;
};

template <typename T>
JsonField<T> int_field(const char* name, std::optional<int64_t> T::*member, IntRange range) {
  return {name, [=](const std::string& label, const Json& value, T& out, std::vector<Error>& problems) {
            read_int(label, value, range, out.*member, problems);
          }};
}
template <typename T>
JsonField<T> number_field(const char* name, std::optional<double> T::*member, NumberRange range) {
  return {name, [=](const std::string& label, const Json& value, T& out, std::vector<Error>& problems) {
            read_number(label, value, range, out.*member, problems);
          }};
}
template <typename T>
JsonField<T> bool_field(const char* name, std::optional<bool> T::*member) {
  return {name, [=](const std::string& label, const Json& value, T& out, std::vector<Error>& problems) {
            read_bool(label, value, out.*member, problems);
          }};
}
template <typename T>
JsonField<T> string_field(const char* name, std::optional<std::string> T::*member) {
  return {name, [=](const std::string& label, const Json& value, T& out, std::vector<Error>& problems) {
            read_string(label, value, out.*member, problems);
          }};
}
template <typename T>
JsonField<T> ints_field(const char* name, std::vector<int64_t> T::*member, IntRange range, bool single_allowed) {
  return {name, [=](const std::string& label, const Json& value, T& out, std::vector<Error>& problems) {
            read_ints(label, value, range, single_allowed, out.*member, problems);
          }};
}

template <typename T>
const JsonField<T>* find_field(const std::vector<JsonField<T>>& fields, std::string_view name) {
  for (const JsonField<T>& field : fields) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

// Token ids are 32-bit everywhere; -1 is not one.
inline constexpr IntRange kTokenIdRange = {0, INT32_MAX};

}  // namespace hadal
