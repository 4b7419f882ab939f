// The configuration file: YAML with option names at the top and a word or a list of words behind each (the format of
// vLLM's --config). Foreign bytes: bounded, nothing nested, no name twice. yaml-cpp stays inside config_yaml.cc.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hadal {

struct ConfigEntry {
  std::string name;                // "max-model-len": '_' became '-', leading dashes are gone
  std::vector<std::string> words;  // as written, quotes removed
  bool is_list = false;
  int line = 0;  // of the name, from 1
};

// Errors: kInvalidArgument with the line: not YAML, nested values, a name twice, no value, over 1 MiB or 4,096 entries.
Expected<std::vector<ConfigEntry>> parse_config_yaml(std::string_view text);
// Errors begin with the path; kNotFound and kIo as read_file().
Expected<std::vector<ConfigEntry>> read_config_yaml(const std::filesystem::path& path);

}  // namespace hadal
