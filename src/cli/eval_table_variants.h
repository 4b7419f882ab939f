// The rows of `hadal eval table`: sets of numerics flags, from a JSON file.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "cli/serve_options.h"

namespace hadal {

struct TableVariant {
  std::string name;      // first column of the table
  std::string kv_cache;  // second column
  ServeOptions options;
  std::vector<std::pair<std::string, std::string>> environment;  // INC_* switches, set while the row is measured
  bool problems = true;                                          // false: too slow to answer problems with
};

// A list of objects with "name", "kv" and, named as the flags with underscores, numerics, quantization, quant_config,
// gaudi_mode, range_map, kv_cache_dtype; "environment": {"INC_..": ".."}; "problems": false. quant_config is relative
// to the file's folder. `base` gives model, measurements, isa, threads. Errors: kCorrupt, naming row and member.
Expected<std::vector<TableVariant>> parse_table_variants(std::string_view text, const std::filesystem::path& folder,
                                                         const ServeOptions& base);

}  // namespace hadal
