// Flags of vLLM's server, and of its Gaudi branch, that have no meaning here. They are accepted, so that command lines
// people already have keep working, and each is answered with one warning that says why. A flag or a value that would
// change the answers, or who gets them, is refused with the reason.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace CLI {
class App;
}

namespace hadal {

class OptionRegistry;

void add_peer_flags(OptionRegistry& registry);

// vLLM's other spellings of `serve`'s arguments, put as ours: -tp 2 for --tensor-parallel-size 2, and a word after a
// switch, as some of its versions want: --enable-expert-parallel True. `arguments`: in the order they were given.
void put_peer_spellings(const CLI::App& serve, std::vector<std::string>& arguments);

// After apply_sources(): one warning for each accepted flag that was given, wherever. Errors: kInvalidArgument for a
// refused flag or value. `model` is --model.
Expected<std::vector<std::string>> check_peer_flags(OptionRegistry& registry, const std::string& model);

}  // namespace hadal
