// What a server and its Ray helper (ray/hadal_ray.py, where the format is defined) say to each other: one JSON object a
// line. The helper's lines carry what Ray and other machines say, so they are foreign: every length is bounded before
// it is believed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "cli/launch_plan.h"

namespace hadal {

inline constexpr size_t kMostRayLineBytes = 64 << 10;
inline constexpr int kMostRayNodes = 4096;

struct RayEvent {
  enum class Kind {
    kLayout,   // layout
    kNode,     // of_node
    kWarning,  // what
    kError,    // code, what: the order was not obeyed and the helper ends
    kOther,    // of a later helper: to be ignored
  };
  Kind kind = Kind::kOther;
  LaunchLayout layout;
  LaunchEvent of_node;
  ErrorCode code = ErrorCode::kInternal;
  std::string what;
};

// One line without its end. Errors: kCorrupt.
Expected<RayEvent> parse_ray_event(std::string_view line);

// Orders, each with its line end.
std::string ray_prepare_line(const LaunchRequest& request);
std::string ray_start_line(const LaunchUnit& unit);
std::string ray_kill_line(int node_rank);

// Bytes to lines. Thread-compatible.
class RayLines {
 public:
  // The lines that `bytes` complete, without their ends. Errors: kCorrupt for a line above kMostRayLineBytes.
  Expected<std::vector<std::string>> take(std::string_view bytes);

 private:
  std::string begun_;
};

}  // namespace hadal
