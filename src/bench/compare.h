// Two results of a benchmark side by side.
#pragma once

#include <string>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

// What differs in machine, model and flags, then a line for each row that both have (ratio B / A of its speed, "~" when
// the ranges of the two overlap), then the rows that only one has. Errors: kCorrupt as read_report().
Expected<std::string> compare_reports(const Json& a, const Json& b);

}  // namespace hadal
