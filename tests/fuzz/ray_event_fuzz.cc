// What the Ray helper says, any bytes: no crash, and what is accepted keeps its bounds.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "cli/launch_ray_lines.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hadal::RayLines lines;
  const auto taken = lines.take({reinterpret_cast<const char*>(data), size});
  if (!taken) return 0;
  for (const std::string& line : *taken) {
    const auto event = hadal::parse_ray_event(line);
    if (!event) continue;
    if (event->kind == hadal::RayEvent::Kind::kNode) {
      HADAL_CHECK(event->of_node.node_rank >= 1 && event->of_node.node_rank < hadal::kMostRayNodes);
    }
    for (const int count : event->layout.ranks_per_node) HADAL_CHECK(count >= 1 && count <= hadal::kMostRayNodes);
  }
  return 0;
}
