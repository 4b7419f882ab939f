// Where options get their values: flag, then environment, then configuration file, then the default.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "cli/config_registry.h"

namespace hadal {

Environment current_environment();

// Sets what the command line has not set: from HADAL_<FLAG> and the peer's variables (an empty one counts as absent;
// lists are separated by commas or written as JSON), then from the file that the option "config" names, then what a
// peer's variables imply (peer_environment.h). `warnings` gains what that says. Errors: kInvalidArgument for an unknown
// name, with the nearest one, or a value that the flag would not take either.
Status apply_sources(OptionRegistry& registry, const Environment& environment, std::vector<std::string>& warnings);

// {"port": {"value": 8000, "origin": "flag"}, ..}: every option with its value; secrets are "***". Peers' flags without
// effect are there only when somebody gave them. Peers' variables that are no options stand under "environment".
Json explain_config(const OptionRegistry& registry);
// The same as a table for people.
std::string explain_config_table(const OptionRegistry& registry);
// {"port": 8000, ..}: the options that somebody set.
Json non_default_values(const OptionRegistry& registry);

}  // namespace hadal
