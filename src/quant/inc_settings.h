// The environment variables of INC quantisation and the path rule of its files. Facts: spec/gaudi-pipeline.md 4.4, 4.6.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/status.h"
#include "formats/inc_config.h"
#include "quant/scale_method.h"

namespace hadal {

struct IncEnvironment {
  std::string quant_config;                     // QUANT_CONFIG, "" when unset
  std::optional<std::string> dump_path_prefix;  // INC_MEASUREMENT_DUMP_PATH_PREFIX, unless unset or empty
  IncSwitches switches;
};

// `get` is std::getenv except in tests. Errors: kInvalidArgument for a switch that is neither on (1, true) nor off (0,
// false, empty, in any case).
Expected<IncEnvironment> read_inc_environment(const std::function<const char*(const char*)>& get);

struct IncStatsPath {
  std::filesystem::path base;  // "dir/inc_measure_output", before "_hooks_maxabs_<rank>_<world size>"
  std::string log_line;        // "" without a prefix
};

// prefix / dump_stats_path; an absolute dump_stats_path wins; without a prefix relative to the working directory.
IncStatsPath resolve_inc_stats_path(const IncConfig& config, const std::optional<std::string>& prefix);

// Errors: kNotFound naming the directory and both settings when the base's directory does not exist.
Status check_inc_stats_dir(const IncStatsPath& path, const IncConfig& config, const std::optional<std::string>& prefix);

}  // namespace hadal
