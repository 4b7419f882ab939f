#include "formats/json_fields.h"

#include <cmath>

#include "formats/message_text.h"

namespace hadal {
namespace {

constexpr size_t kMaxListLength = 4096;

template <typename... Args>
void add_problem(std::vector<Error>& problems, fmt::format_string<Args...> format, Args&&... args) {
  problems.push_back({ErrorCode::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...)});
}

std::optional<int64_t> int_in_range(const Json& value, IntRange range) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  const int64_t number = value.get<int64_t>();
  if (number < range.min || number > range.max) return std::nullopt;
  return number;
}

}  // namespace

void read_int(const std::string& name, const Json& value, IntRange range, std::optional<int64_t>& out,
              std::vector<Error>& problems) {
  if (value.is_null()) return;
  if (const auto number = int_in_range(value, range)) {
    out = number;
  } else {
    add_problem(problems, "{} is {}, expected an integer from {} to {}", name, show_json(value), range.min, range.max);
  }
}

void read_number(const std::string& name, const Json& value, NumberRange range, std::optional<double>& out,
                 std::vector<Error>& problems) {
  if (value.is_null()) return;
  const double number = value.is_number() ? value.get<double>() : NAN;
  const bool fits = number <= range.max && (range.min_is_open ? number > range.min : number >= range.min);
  if (fits) {
    out = number;
  } else {
    add_problem(problems, "{} is {}, expected a number {} {} and at most {}", name, show_json(value),
                range.min_is_open ? "above" : "from", range.min, range.max);
  }
}

void read_bool(const std::string& name, const Json& value, std::optional<bool>& out, std::vector<Error>& problems) {
  if (value.is_null()) return;
  if (value.is_boolean()) {
    out = value.get<bool>();
  } else {
    add_problem(problems, "{} is {}, expected true or false", name, show_json(value));
  }
}

void read_string(const std::string& name, const Json& value, std::optional<std::string>& out,
                 std::vector<Error>& problems) {
  if (value.is_null()) return;
  if (value.is_string()) {
    out = value.get<std::string>();
  } else {
    add_problem(problems, "{} is {}, expected a string", name, show_json(value));
  }
}

void read_ints(const std::string& name, const Json& value, IntRange range, bool single_allowed,
               std::vector<int64_t>& out, std::vector<Error>& problems) {
  if (value.is_null()) return;
  const Json list = value.is_array() || !single_allowed ? value : Json::array({value});
  bool fits = list.is_array() && list.size() <= kMaxListLength;
  std::vector<int64_t> numbers;
  for (size_t i = 0; fits && i < list.size(); ++i) {
    const auto number = int_in_range(list[i], range);
    fits = number.has_value();
    if (fits) numbers.push_back(*number);
  }
  if (fits) {
    out = std::move(numbers);
  } else {
    add_problem(problems, "{} is {}, expected {}a list of integers from {} to {}", name, show_json(value),
                single_allowed ? "an integer or " : "", range.min, range.max);
  }
}

}  // namespace hadal
