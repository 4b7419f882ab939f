#include "cli/launch_environment.h"

namespace hadal {

Expected<Environment> adapt_launcher_environment(Environment environment) { return environment; }

}  // namespace hadal
