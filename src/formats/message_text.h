// Foreign names and values inside error messages: one line, valid UTF-8, bounded.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace hadal {

// "name" in double quotes, control characters escaped, shortened above 200 bytes.
std::string quote_name(std::string_view name);

// The value as compact JSON, shortened above 80 bytes.
std::string show_json(const Json& value);

}  // namespace hadal
