// A record of the scales in use, beside the measurements, in the form of INC's own cache (Mode "Scale"; spec 4.6). Its
// name says everything the scales depend on but the measurements, whose hash is inside. It is for people and tools:
// nothing reads it back, since making the scales takes milliseconds, so it cannot go stale unnoticed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "quant/inc_plan.h"

namespace hadal {

// <base>_hooks_maxabs_<SCALE_METHOD>_<naive|rounded>_<bf16|fp32>_<gaudi2|gaudi3>_0_1.json
std::filesystem::path inc_scale_file_path(const std::filesystem::path& base, const IncConfig& config,
                                          const IncPlanOptions& options);

// Of everything the scales are made from: ranges, method, parameters, lists, switches, device.
uint64_t inc_scale_inputs_hash(const RangeSet& ranges, const IncConfig& config, const IncPlanOptions& options);

// Scales of one matrix [rows, cols], by module name: one per row, or a single one for all.
using IncWeightScales = std::map<std::string, std::vector<float>>;

// The file's text. `weights` may lack modules, then their params are left out. Row scales are written as INC does:
// {"weight": {"0": [one per row], "1": [1.0]}}.
std::string inc_scale_file_json(const IncPlanReport& report, const IncWeightScales& weights, uint64_t inputs_hash);

// Writes atomically. Errors (a read-only directory ...) are for a warning: serving does not need the file.
Status write_inc_scale_file(const std::filesystem::path& path, const IncPlanReport& report,
                            const IncWeightScales& weights, uint64_t inputs_hash);

}  // namespace hadal
