// JSON from untrusted bytes: bounded in size, depth and, if asked, without repeated keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hadal {

// Keys keep their order: chat templates print them.
using Json = nlohmann::ordered_json;

struct JsonLimits {
  size_t max_bytes = size_t{64} << 20;
  int max_depth = 64;            // nesting of arrays and objects
  size_t max_values = SIZE_MAX;  // of all kinds; a value costs about 16 bytes of memory, in text as little as 2
  bool refuse_duplicate_keys = false;
};

// Errors: kCorrupt with the byte offset and reason.
Expected<Json> parse_json(std::string_view text, const JsonLimits& limits = {});

// dump() that replaces invalid UTF-8 by U+FFFD and never throws. Compact form, no ASCII escaping.
std::string dump_json(const Json& value);

}  // namespace hadal
