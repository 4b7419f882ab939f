// Whether the FP8 codes of a model folder are as published or were converted for Gaudi 2.
#pragma once

#include <filesystem>
#include <optional>

#include "base/status.h"
#include "quant/range_detect.h"

namespace hadal {

struct RangeProbe {
  RangeEvidence evidence;
  std::optional<RangeMap> applied;  // kNone: as published; nothing: the samples do not tell
};

// Samples at most 48 tensors spread over the folder, the first rows of each (about 25 MB in all). No FP8 tensors with
// block scales: no evidence.
Expected<RangeProbe> probe_range(const std::filesystem::path& dir);

}  // namespace hadal
