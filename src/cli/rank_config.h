// The resolved configuration as rank 0 gives it to the other ranks: everything that decides what a step computes, so
// that nothing on another node is left to its flags, environment or processor.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "cli/serve_options.h"

namespace hadal {

// JSON object. Paths become absolute, $QUANT_CONFIG and kNumericsVariables are read. `isa`: the kernels that rank 0
// chose.
std::string write_rank_config(const ServeOptions& options, std::string_view isa);

// Errors: kCorrupt naming the key that is missing, unknown or of the wrong type.
Expected<ServeOptions> parse_rank_config(std::string_view text);

}  // namespace hadal
