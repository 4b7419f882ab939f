// Named string formats of JSON Schema, as regexes. Used by json_schema_string.cc.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace hadal {

// A regex of whole strings that are of the format; not all of them: dates exist in the calendar, names and addresses
// are of moderate length, URIs have an authority. Errors: kUnsupported, with the formats that there are.
Expected<std::string> json_format_regex(std::string_view format);

}  // namespace hadal
