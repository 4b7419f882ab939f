#include "quant/convert_marker.h"

#include <vector>

#include "base/names.h"
#include "formats/message_text.h"

namespace hadal {
namespace {

constexpr int kMarkerVersion = 1;
constexpr std::string_view kBlank = " \t\r\n";

template <typename T, size_t kNum>
Expected<T> parse_name(std::string_view name, const char* what, const std::pair<const char*, T> (&values)[kNum]) {
  std::vector<std::string> names;
  for (const auto& [known, value] : values) {
    if (name == known) return value;
    names.emplace_back(known);
  }
  const std::string near = closest_name(name, names);
  std::string all;
  for (const std::string& known : names) all += (all.empty() ? "" : ", ") + known;
  return make_error(ErrorCode::kInvalidArgument, "unknown {} {}; expected one of {}{}", what, quote_name(name), all,
                    near.empty() ? "" : fmt::format(" (did you mean {}?)", near));
}

}  // namespace

const char* convert_method_name(ConvertMethod method) {
  switch (method) {
    case ConvertMethod::kExact:
      return "exact";
    case ConvertMethod::kSeed:
      return "seed";
    case ConvertMethod::kChannel:
      return "channel";
  }
  return "unknown";
}

const char* convert_target_name(FpRange target) { return target == FpRange::kGaudi2 ? "gaudi2" : "gaudi3"; }

Expected<ConvertMethod> parse_convert_method(std::string_view name) {
  return parse_name<ConvertMethod>(
      name, "method",
      {{"exact", ConvertMethod::kExact}, {"seed", ConvertMethod::kSeed}, {"channel", ConvertMethod::kChannel}});
}

Expected<FpRange> parse_convert_target(std::string_view name) {
  return parse_name<FpRange>(name, "target", {{"gaudi2", FpRange::kGaudi2}, {"gaudi3", FpRange::kGaudi3}});
}

Json marker_to_json(const ConvertMarker& marker) {
  return {{"version", kMarkerVersion},
          {"method", convert_method_name(marker.method)},
          {"target", convert_target_name(marker.target)},
          {"bug_compatible", marker.bug_compatible}};
}

Expected<std::optional<ConvertMarker>> marker_of_config(const Json& config) {
  const auto at = config.is_object() ? config.find(kConvertMarkerKey) : config.end();
  if (at == config.end()) return std::optional<ConvertMarker>();
  const auto text = [&](const char* key) {
    return at->is_object() && at->contains(key) && (*at)[key].is_string() ? (*at)[key].get<std::string>()
                                                                          : std::string();
  };
  if (!at->is_object() || !at->contains("version") || (*at)["version"] != kMarkerVersion) {
    return make_error(ErrorCode::kUnsupported, "{} is {}, expected version {}; use the hadal that converted the folder",
                      kConvertMarkerKey, show_json(*at), kMarkerVersion);
  }
  ConvertMarker marker;
  auto method = parse_convert_method(text("method"));
  if (!method) return forward_error(std::move(method), kConvertMarkerKey);
  auto target = parse_convert_target(text("target"));
  if (!target) return forward_error(std::move(target), kConvertMarkerKey);
  marker.method = *method;
  marker.target = *target;
  marker.bug_compatible = at->contains("bug_compatible") && (*at)["bug_compatible"] == true;
  return std::optional<ConvertMarker>(marker);
}

std::string add_marker_to_config(std::string_view text, const ConvertMarker& marker) {
  const size_t brace = text.rfind('}');
  const size_t last = text.find_last_not_of(kBlank, brace - 1);
  std::string out(text.substr(0, last + 1));
  out += fmt::format("{}\n  \"{}\": {}\n}}", text[last] == '{' ? "" : ",", kConvertMarkerKey,
                     dump_json(marker_to_json(marker)));
  out += text.substr(brace + 1);
  return out;
}

}  // namespace hadal
