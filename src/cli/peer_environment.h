// Variables of the environment that vLLM, its Gaudi branch and the guide's scripts read: VLLM_*, INC_*, QUANT_CONFIG,
// PT_HPU_*, GLOO_SOCKET_IFNAME and others, in one table that says of each what it sets here, or why it has no meaning.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "cli/config_registry.h"

namespace hadal {

// Tells the options which variables give them their value, after HADAL_<FLAG>: VLLM_API_KEY, GLOO_SOCKET_IFNAME. After
// all options are added.
void add_peer_environment(OptionRegistry& registry);

// After flags, environment and file: what several variables say together (VLLM_REQUANT_FP8_INC=1 with QUANT_CONFIG is
// --quantization inc), notes for --explain-config, one warning per reason for those without meaning here, and one per
// name that nobody reads but that is nearly one of the table: GLOO_SOCKER_IFNAME. Errors: as set_option().
Status apply_peer_environment(OptionRegistry& registry, const Environment& environment,
                              std::vector<std::string>& warnings);

}  // namespace hadal
