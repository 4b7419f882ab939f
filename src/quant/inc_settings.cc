#include "quant/inc_settings.h"

#include <algorithm>

#include "formats/message_text.h"

namespace hadal {
namespace fs = std::filesystem;

Expected<bool> read_inc_switch(const std::function<const char*(const char*)>& get, const char* name) {
  const char* text = get(name);
  std::string value = text ? text : "";
  std::transform(value.begin(), value.end(), value.begin(),
                 [](unsigned char c) { return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); });
  if (value == "1" || value == "true") return true;
  if (value.empty() || value == "0" || value == "false") return false;
  return make_error(ErrorCode::kInvalidArgument, "{} is {}, expected 1, true, 0 or false", name, quote_name(value));
}

Expected<IncEnvironment> read_inc_environment(const std::function<const char*(const char*)>& get) {
  IncEnvironment out;
  if (const char* path = get("QUANT_CONFIG")) out.quant_config = path;
  if (const char* prefix = get("INC_MEASUREMENT_DUMP_PATH_PREFIX"); prefix && *prefix) out.dump_path_prefix = prefix;
  HADAL_ASSIGN_OR_RETURN(out.switches.force_naive_scaling, read_inc_switch(get, "INC_FORCE_NAIVE_SCALING"));
  HADAL_ASSIGN_OR_RETURN(out.switches.force_scale_fp32, read_inc_switch(get, "INC_FORCE_SCALE_FP32"));
  return out;
}

IncStatsPath resolve_inc_stats_path(const IncConfig& config, const std::optional<std::string>& prefix) {
  if (!prefix) return {.base = config.dump_stats_path, .log_line = ""};
  const fs::path base = fs::path(*prefix) / config.dump_stats_path;
  return {.base = base,
          .log_line = fmt::format("INC_MEASUREMENT_DUMP_PATH_PREFIX is set to {}, dump_stats_path is set to {}",
                                  *prefix, base.string())};
}

Status check_inc_stats_dir(const IncStatsPath& path, const IncConfig& config,
                           const std::optional<std::string>& prefix) {
  const fs::path dir = path.base.has_parent_path() ? path.base.parent_path() : fs::path(".");
  std::error_code ignored;
  if (fs::is_directory(dir, ignored)) return {};
  return make_error(ErrorCode::kNotFound,
                    "measurement directory {} does not exist (dump_stats_path {}, INC_MEASUREMENT_DUMP_PATH_PREFIX {})",
                    dir.string(), quote_name(config.dump_stats_path), prefix ? quote_name(*prefix) : "not set");
}

}  // namespace hadal
