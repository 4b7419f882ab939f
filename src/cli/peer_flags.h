// Flags of vLLM's server, and of its Gaudi branch, that have no meaning here. They are accepted, so that command lines
// people already have keep working, and each is answered with one warning that says why. A flag whose value would
// change the answers is not here: it is either obeyed or refused.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace hadal {

void add_peer_flags(CLI::App& command);
// Logs a warning for each peer flag that was given.
void warn_about_peer_flags(const CLI::App& command);

}  // namespace hadal
