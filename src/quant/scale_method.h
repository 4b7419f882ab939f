// What an INC scale method, its parameters and the switches of the environment mean in terms of ScaleRules, as branch
// r1-woq has it. Facts: spec/gaudi-pipeline.md 4.2, 4.4.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/inc_config.h"
#include "quant/scale_rule.h"

namespace hadal {

struct IncSwitches {
  bool force_naive_scaling = false;  // INC_FORCE_NAIVE_SCALING: backoff 1 and no rounding, whatever the method
  bool force_scale_fp32 = false;     // INC_FORCE_SCALE_FP32: scale arithmetic in FP32 instead of BF16
};

struct IncScaleRules {
  ScaleRule activation, weight;
  bool weight_per_row = false;       // else one scale for all rows of a module
  std::optional<StaticScale> fixed;  // UNIT_SCALE, HW_ALIGNED_SINGLE_SCALE: of activations and weights alike
  std::vector<std::string> notes;    // for the log

  bool needs_measurement() const { return !fixed; }
};

// `device` is what the codes are for. The rounder is chosen from the whole method name, "hw" before "pow", so that
// ACT_MAXABS_HW_WEIGHTS_PCS_MAXABS_POW2 rounds weight scales to hardware-aligned ones too.
// Errors: kUnsupported for the SmoothQuant and OPT families, MAX, and scales for another device than "GAUDI2" on a
// Gaudi 3 with MAXABS_HW.
Expected<IncScaleRules> inc_scale_rules(const IncConfig& config, FpRange device, const IncSwitches& switches);

}  // namespace hadal
