// Reads the static activation scales for per-channel conversion: JSON, {"<module>": scale, ..}. A module may also be
// written as "<module>.input_scale_inv" or "<module>.input_scale", a scale as a list of one number. They are
// dequantisation multipliers for a full scale of 448.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/status.h"
#include "quant/convert_plan.h"

namespace hadal {

// Errors: kCorrupt (not such JSON), kInvalidArgument naming the module: not finite, not above 0, given twice.
Expected<InputScales> parse_input_scales(std::string_view text);

// Errors begin with the path. The peer's gzip and pickle files are kUnsupported; the message has the line of Python
// that turns one into JSON.
Expected<InputScales> load_input_scales(const std::filesystem::path& path);

}  // namespace hadal
