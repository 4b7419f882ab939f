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

// A variable of the fork that is on (1, true) or off (0, false, empty, unset), in any case. Errors: kInvalidArgument
// for anything else. `get` is std::getenv except in tests.
Expected<bool> read_inc_switch(const std::function<const char*(const char*)>& get, const char* name);

// Errors: as read_inc_switch().
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
