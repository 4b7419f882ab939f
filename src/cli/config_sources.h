// Where options get their values: flag, then environment, then configuration file, then the default.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "cli/config_registry.h"

namespace hadal {

using Environment = std::vector<std::pair<std::string, std::string>>;  // name, value

Environment current_environment();

// Sets what the command line has not set: from HADAL_<FLAG> and the peer's variables (an empty one counts as absent;
// lists are separated by commas or written as JSON), then from the file that the option "config" names. `warnings`
// gains names that look like a peer's variable but are none. Errors: kInvalidArgument for an unknown name, with the
// nearest one, or a value that the flag would not take either.
Status apply_sources(OptionRegistry& registry, const Environment& environment, std::vector<std::string>& warnings);

// {"port": {"value": 8000, "origin": "flag"}, ..}: every option with its value; secrets are "***". Peers' flags without
// effect are there only when somebody gave them.
Json explain_config(const OptionRegistry& registry);
// The same as a table for people.
std::string explain_config_table(const OptionRegistry& registry);
// {"port": 8000, ..}: the options that somebody set.
Json non_default_values(const OptionRegistry& registry);

}  // namespace hadal
