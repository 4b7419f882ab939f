// JSON as Python's json.dumps(value, indent=4) spells it, for files that Python tools compare or diff.
#pragma once

#include <string>

#include "base/json.h"

namespace hadal {

// repr() of a float: shortest digits that read back the same, "1e-05" below 1e-4, "1e+16" from there, "28.0".
std::string python_float(double value);

// Indent 4, ASCII only, floats as python_float(). Requires finite numbers.
std::string python_json(const Json& value);

}  // namespace hadal
