// "did you mean": nearest valid spelling for error messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace hadal {

// The candidate nearest to `name` by edit distance (case, '-' and '_' are equal), or "" when none is near:
// the distance must be at most a third of the name's length, and at most `max_distance`.
std::string closest_name(std::string_view name, std::span<const std::string> candidates,
                         size_t max_distance = SIZE_MAX);

}  // namespace hadal
