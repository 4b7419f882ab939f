// A fingerprint of a numerics plan: equal plans, and only those, have the same (up to chance).
#pragma once

#include <string>

#include "quant/numerics_plan.h"

namespace hadal {

// 32 hexadecimal digits, over every field that changes a number: formats, scales, range map.
std::string numerics_hash(const NumericsPlan& plan);

}  // namespace hadal
