// Typed reading of a request's JSON object. Absent and null are the same and leave the target alone; the first wrong
// field is kept as the error, later reads go on harmlessly. Fields nobody reads are ignored, as clients expect, and can
// be told.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "server/api_error.h"

namespace hadal {

// Legal values and how to say it: "top_p must be in (0, 1], got 1.5".
struct NumberRange {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_is_open = false;
  const char* text = "";
};

class FieldReader {
 public:
  explicit FieldReader(const Json& object);  // keeps a reference; an error when it is no object

  // The value, or null when absent or null.
  const Json* find(const char* name) const;

  void number(const char* name, const NumberRange& range, float* out);
  void integer(const char* name, int64_t min, int64_t max, int64_t* out);
  void integer(const char* name, int64_t min, int64_t max, std::optional<int64_t>* out);
  void boolean(const char* name, bool* out);
  void string(const char* name, size_t max_bytes, std::string* out);
  // A string counts as a list of one when `or_one` is set.
  void strings(const char* name, size_t max_items, size_t max_bytes, bool or_one, std::vector<std::string>* out);
  // Token ids: integers from 0 to 2^31 - 1.
  void token_ids(const char* name, size_t max_items, std::vector<int32_t>* out);

  // Fields of the object that nobody has asked for so far.
  std::vector<std::string> unread_fields() const;

  void fail(ApiError error);
  const std::optional<ApiError>& error() const { return error_; }

 private:
  const Json& object_;
  std::optional<ApiError> error_;
  mutable std::vector<std::string_view> asked_;  // names given to find()
};

// An integer within int64, given as such or as 5.0.
std::optional<int64_t> json_integer(const Json& value);
// Reads a list of token ids; false when an item is none.
bool read_token_ids(const Json& list, std::vector<int32_t>* out);

}  // namespace hadal
