// Launchers that we do not write for ourselves say a process's place in variables of their own. Each adapter turns them
// into the names of rank_contract.h; what is set under those names already stays.
#pragma once

#include "base/status.h"
#include "cli/config_sources.h"

namespace hadal {

// `environment` with the HADAL_* names added that a known launcher's variables stand for; as it was when there are
// none. Errors: kInvalidArgument for variables that contradict each other.
Expected<Environment> adapt_launcher_environment(Environment environment);

}  // namespace hadal
