#include "cli/launch_ray_lines.h"

#include <algorithm>
#include <iterator>

#include "base/json.h"

namespace hadal {
namespace {

constexpr size_t kMostAddressBytes = 255;  // of a DNS name

const Json* member(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

Expected<std::string> text_of(const Json& object, const char* name) {
  const Json* value = member(object, name);
  if (value == nullptr || !value->is_string()) return make_error(ErrorCode::kCorrupt, "{} is no text", name);
  return value->get<std::string>();
}

Expected<int> number_of(const Json* value, const char* name, int least, int most) {
  const bool fits = value != nullptr && value->is_number_integer() && *value >= least && *value <= most;
  if (!fits) return make_error(ErrorCode::kCorrupt, "{} is no number of {}..{}", name, least, most);
  return value->get<int>();
}

Expected<LaunchLayout> layout_of(const Json& object) {
  LaunchLayout layout;
  HADAL_ASSIGN_OR_RETURN(layout.master_addr, text_of(object, "address"));
  const bool printable = std::all_of(layout.master_addr.begin(), layout.master_addr.end(),
                                     [](unsigned char byte) { return byte > ' ' && byte < 127; });
  if (!printable || layout.master_addr.empty() || layout.master_addr.size() > kMostAddressBytes) {
    return make_error(ErrorCode::kCorrupt, "address is none");
  }
  const Json* ranks = member(object, "ranks_per_node");
  if (ranks == nullptr || !ranks->is_array() || ranks->empty() || ranks->size() > kMostRayNodes) {
    return make_error(ErrorCode::kCorrupt, "ranks_per_node is no list of 1..{} numbers", kMostRayNodes);
  }
  for (const Json& count : *ranks) {
    HADAL_ASSIGN_OR_RETURN(const int number, number_of(&count, "ranks_per_node", 1, kMostRayNodes));
    layout.ranks_per_node.push_back(number);
  }
  return layout;
}

constexpr std::pair<std::string_view, LaunchEvent::Kind> kNodeEvents[] = {{"started", LaunchEvent::Kind::kStarted},
                                                                          {"log", LaunchEvent::Kind::kLog},
                                                                          {"exited", LaunchEvent::Kind::kExited},
                                                                          {"lost", LaunchEvent::Kind::kLost}};
constexpr std::pair<std::string_view, ErrorCode> kCodes[] = {{"unavailable", ErrorCode::kUnavailable},
                                                             {"resource_exhausted", ErrorCode::kResourceExhausted},
                                                             {"invalid_argument", ErrorCode::kInvalidArgument}};

template <typename T, size_t N>
const T* look_up(const std::pair<std::string_view, T> (&table)[N], std::string_view name) {
  const auto found =
      std::find_if(std::begin(table), std::end(table), [&](const auto& row) { return row.first == name; });
  return found == std::end(table) ? nullptr : &found->second;
}

Expected<RayEvent> event_of(const Json& object) {
  RayEvent event;
  HADAL_ASSIGN_OR_RETURN(const std::string name, text_of(object, "event"));
  if (name == "layout") {
    event.kind = RayEvent::Kind::kLayout;
    HADAL_ASSIGN_OR_RETURN(event.layout, layout_of(object));
  } else if (const LaunchEvent::Kind* kind = look_up(kNodeEvents, name)) {
    event.kind = RayEvent::Kind::kNode;
    event.of_node.kind = *kind;
    HADAL_ASSIGN_OR_RETURN(event.of_node.node_rank, number_of(member(object, "node"), "node", 1, kMostRayNodes - 1));
    HADAL_ASSIGN_OR_RETURN(event.of_node.what, text_of(object, "what"));
  } else if (name == "warning" || name == "error") {
    event.kind = name == "error" ? RayEvent::Kind::kError : RayEvent::Kind::kWarning;
    HADAL_ASSIGN_OR_RETURN(event.what, text_of(object, "what"));
    const ErrorCode* code = look_up(kCodes, text_of(object, "code").value_or(""));
    event.code = code == nullptr ? ErrorCode::kInternal : *code;
  }
  return event;
}

}  // namespace

Expected<RayEvent> parse_ray_event(std::string_view line) {
  const JsonLimits limits{
      .max_bytes = kMostRayLineBytes, .max_depth = 4, .max_values = 4 * kMostRayNodes, .refuse_duplicate_keys = true};
  auto object = parse_json(line, limits);
  if (!object) return forward_error(std::move(object), "Ray helper");
  if (!object->is_object()) return make_error(ErrorCode::kCorrupt, "Ray helper: not a JSON object");
  auto event = event_of(*object);
  if (!event) return forward_error(std::move(event), "Ray helper");
  return event;
}

std::string ray_prepare_line(const LaunchRequest& request) {
  const std::string program = request.command.empty() ? "" : request.command.front();
  return dump_json({{"op", "prepare"},
                    {"world_size", request.world_size},
                    {"nnodes", request.nnodes},
                    {"program", program}}) +
         "\n";
}

std::string ray_start_line(const LaunchUnit& unit) {
  Json env = Json::object();
  for (const auto& [name, value] : unit.env) env[name] = value;
  return dump_json({{"op", "start"}, {"node", unit.node_rank}, {"argv", unit.command}, {"env", std::move(env)}}) + "\n";
}

std::string ray_kill_line(int node_rank) { return dump_json({{"op", "kill"}, {"node", node_rank}}) + "\n"; }

Expected<std::vector<std::string>> RayLines::take(std::string_view bytes) {
  std::vector<std::string> lines;
  while (true) {
    const size_t end = bytes.find('\n');
    if (begun_.size() + std::min(end, bytes.size()) > kMostRayLineBytes) {
      return make_error(ErrorCode::kCorrupt, "Ray helper: a line of more than {} bytes", kMostRayLineBytes);
    }
    begun_.append(bytes.substr(0, end));
    if (end == std::string_view::npos) return lines;
    lines.push_back(std::exchange(begun_, {}));
    bytes.remove_prefix(end + 1);
  }
}

}  // namespace hadal
