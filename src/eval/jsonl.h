// Files of one JSON object a line, as data sets come.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

inline constexpr uint64_t kMaxJsonlBytes = uint64_t{1} << 30;

// Calls `take` with every object of the text and its line number (from 1); blank lines are passed over. Stops at the
// first error, which names `where` and the line: kCorrupt for a line that is no object, longer than 16 MiB or repeats a
// key; what `take` returns otherwise.
Status for_each_json_line(std::string_view text, std::string_view where,
                          const std::function<Status(const Json& object, int64_t line)>& take);

// A member of a line that must be a string. Errors: kCorrupt, naming it.
Expected<std::string> string_member(const Json& object, const char* name);

}  // namespace hadal
