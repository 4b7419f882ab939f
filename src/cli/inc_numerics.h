// --quantization inc: the INC config, the environment, the measurements, and the plan they make.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/serve_options.h"
#include "model/config.h"
#include "quant/inc_plan.h"

namespace hadal {

struct IncNumerics {
  NumericsPlan plan;
  std::string method_key;  // "maxabs_hw-rounded", "act_maxabs_hw_weights_pcs_maxabs_pow2-naive"
  std::string summary;
  uint64_t inputs_hash = 0;  // inc_scale_inputs_hash()
  std::vector<std::string> warnings;
};

// Reads --quant-config (or $QUANT_CONFIG) and the measurements: --measurements (a file of hadal calibrate, or a folder
// with one or with INC files), else the config's dump_stats_path under $INC_MEASUREMENT_DUMP_PATH_PREFIX. Logs what INC
// logs. Writes a record of the scales beside the measurements where it may.
Expected<IncNumerics> open_inc_numerics(const ServeOptions& options, const ModelConfig& config,
                                        IncPlanOptions plan_options);

}  // namespace hadal
