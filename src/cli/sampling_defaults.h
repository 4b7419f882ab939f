// The sampling parameters of requests that leave them out: the model's recommendation and what the operator overrides.
#pragma once

#include <string>

#include "base/status.h"
#include "formats/generation_config.h"
#include "server/protocol.h"

namespace hadal {

// `source` is --generation-config: "auto" takes `of_model`, "vllm" neutral values, anything else is a folder with a
// generation_config.json. `overrides` is --override-generation-config, a JSON object or "": its keys win. Errors:
// kInvalidArgument naming the flag and key.
Expected<SamplingDefaults> choose_sampling_defaults(const std::string& source, const std::string& overrides,
                                                    const GenerationConfig& of_model);

// "temperature 0.6, top_p 0.95"; "none" when every parameter is neutral.
std::string describe(const SamplingDefaults& defaults);

}  // namespace hadal
