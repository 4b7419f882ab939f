#include "server/field_reader.h"

#include <algorithm>
#include <cmath>

#include "base/utf8.h"

namespace hadal {
namespace {

// The value as the client wrote it, short enough for a message.
std::string shown(const Json& value) {
  std::string text = dump_json(value);
  if (text.size() > 80) text = to_valid_utf8(text.substr(0, 80)) + "...";
  return text;
}

}  // namespace

std::optional<int64_t> json_integer(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (number == std::floor(number) && std::abs(number) < 9007199254740992.0) return static_cast<int64_t>(number);
  }
  return std::nullopt;
}

bool read_token_ids(const Json& list, std::vector<int32_t>* out) {
  out->clear();
  out->reserve(list.size());
  for (const Json& item : list) {
    const auto id = item.is_number() ? json_integer(item) : std::nullopt;
    if (!id || *id < 0 || *id > std::numeric_limits<int32_t>::max()) return false;
    out->push_back(static_cast<int32_t>(*id));
  }
  return true;
}

FieldReader::FieldReader(const Json& object) : object_(object) {
  if (!object.is_object()) fail(bad_request("", "The request body must be a JSON object"));
}

const Json* FieldReader::find(const char* name) const {
  if (!object_.is_object()) return nullptr;
  asked_.push_back(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::vector<std::string> FieldReader::unread_fields() const {
  std::vector<std::string> unread;
  if (!object_.is_object()) return unread;
  for (const auto& [name, value] : object_.items()) {
    if (std::find(asked_.begin(), asked_.end(), name) == asked_.end()) unread.push_back(name);
  }
  return unread;
}

void FieldReader::fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void FieldReader::number(const char* name, const NumberRange& range, float* out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_number()) return fail(bad_request(name, "{} must be a number, got {}", name, shown(*value)));
  const double number = value->get<double>();
  const bool inside = number <= range.max && (range.min_is_open ? number > range.min : number >= range.min);
  if (!inside) return fail(bad_request(name, "{} {}, got {}.", name, range.text, shown(*value)));
  *out = static_cast<float>(number);
}

void FieldReader::integer(const char* name, int64_t min, int64_t max, std::optional<int64_t>* out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_number()) return fail(bad_request(name, "{} must be an integer, got {}", name, shown(*value)));
  const auto number = json_integer(*value);
  if (!number) {
    const double real = value->get<double>();
    if (std::abs(real) >= 9.2e18) {
      return fail(
          bad_request(name, "{}: {} is out of range: {}", name, shown(*value),
                      real > 0 ? "less_than_equal 9223372036854775807" : "greater_than_equal -9223372036854775808"));
    }
    return fail(bad_request(name, "{} must be an integer, got {}", name, shown(*value)));
  }
  if (*number < min && min == 0) return fail(bad_request(name, "{} must be non-negative, got {}.", name, *number));
  if (*number < min) return fail(bad_request(name, "{} must be at least {}, got {}.", name, min, *number));
  if (*number > max) return fail(bad_request(name, "{} must be in [{}, {}], got {}.", name, min, max, *number));
  *out = *number;
}

void FieldReader::integer(const char* name, int64_t min, int64_t max, int64_t* out) {
  std::optional<int64_t> number;
  integer(name, min, max, &number);
  if (number) *out = *number;
}

void FieldReader::boolean(const char* name, bool* out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_boolean()) return fail(bad_request(name, "{} must be true or false, got {}", name, shown(*value)));
  *out = value->get<bool>();
}

void FieldReader::string(const char* name, size_t max_bytes, std::string* out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_string()) return fail(bad_request(name, "{} must be a string, got {}", name, shown(*value)));
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() > max_bytes) {
    return fail(bad_request(name, "{} must be at most {} bytes, got {}", name, max_bytes, text.size()));
  }
  *out = text;
}

void FieldReader::strings(const char* name, size_t max_items, size_t max_bytes, bool or_one,
                          std::vector<std::string>* out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  const char* expected = or_one ? "a string or a list of strings" : "a list of strings";
  std::vector<const Json*> items;
  if (or_one && value->is_string()) {
    items.push_back(value);
  } else if (value->is_array()) {
    for (const Json& item : *value) items.push_back(&item);
  } else {
    return fail(bad_request(name, "{} must be {}, got {}", name, expected, shown(*value)));
  }
  if (items.size() > max_items) {
    return fail(bad_request(name, "{} must have at most {} entries, got {}", name, max_items, items.size()));
  }
  out->clear();
  for (const Json* item : items) {
    if (!item->is_string()) return fail(bad_request(name, "{} must be {}, got {}", name, expected, shown(*item)));
    const auto& text = item->get_ref<const std::string&>();
    if (text.empty()) return fail(bad_request(name, "{} cannot contain an empty string.", name));
    if (text.size() > max_bytes) {
      return fail(bad_request(name, "{} entries must be at most {} bytes, got {}", name, max_bytes, text.size()));
    }
    out->push_back(text);
  }
}

void FieldReader::token_ids(const char* name, size_t max_items, std::vector<int32_t>* out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_array() || value->size() > max_items || !read_token_ids(*value, out)) {
    fail(bad_request(name, "{} must be a list of at most {} token ids, got {}", name, max_items, shown(*value)));
  }
}

}  // namespace hadal
