// From measurements and an INC config to the scales of every module: numerics mode D. Which modules are quantised is
// decided as INC does (patchable class, allow and block lists), names as in inc_modules.h at world size 1.
// Facts: spec/gaudi-pipeline.md 4.3 to 4.5, 5.3, 5.4.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/inc_config.h"
#include "quant/numerics_plan.h"
#include "quant/range_set.h"
#include "quant/scale_method.h"

namespace hadal {

struct IncPlanOptions {
  NumericsProfile profile = NumericsProfile::kGaudi2;  // kGaudi2 or kGaudi3
  RangeMap range_map = RangeMap::kNone;                // what the stored codes need before a Gaudi 2 can read them
  bool fp8_cache = false;                              // --kv-cache-dtype fp8_inc; else the cache stays BF16
  IncSwitches switches;
};

struct IncModuleScales {
  std::string name;
  std::vector<StaticScale> inputs;
  std::vector<StaticScale> outputs;  // fused SDPA: output, probabilities; MoE op: combined output if measured, experts
};

struct IncPlanReport {
  int64_t num_modules = 0;                    // patchable ones
  int64_t num_quantised = 0;                  // a module counts once, experts' linears each
  int64_t num_blocked = 0;                    // by the lists
  std::vector<std::string> without_measures;  // left in BF16 by ignore_modules_wo_measures

  // An expert whose scale is the median of its layer's, since calibration gave none.
  struct Substitute {
    int64_t layer = 0;
    int64_t expert = 0;
    bool was_zero = false;  // else unmeasured
    float scale = 0;
  };
  std::vector<Substitute> substitutes;

  std::vector<std::string> notes;       // for the log
  std::vector<IncModuleScales> scales;  // of quantised modules, in traversal order, experts' linears left out
};

// Errors: kInvalidArgument naming the module whose measurement is missing or 0 (of an expert: substituted),
// kUnsupported naming the setting that this program does not do. `report` is complete only on success.
Expected<NumericsPlan> make_inc_plan(const RangeSet& ranges, const IncConfig& config, const IncPlanOptions& options,
                                     IncPlanReport& report);

// "expert 17 of layer 4: no token came by, scale 0.25 (median of its layer)", at most `max_lines` and how many more.
std::vector<std::string> describe_substitutes(const IncPlanReport& report, size_t max_lines);

}  // namespace hadal
