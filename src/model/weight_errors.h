// How far the weights that a numerics plan makes are from the checkpoint's own values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/kernels.h"
#include "model/loader.h"
#include "quant/numerics_plan.h"

namespace hadal {

struct WeightError {
  std::string name;    // of the checkpoint's tensor
  double sqnr_db = 0;  // 10 log10(sum w^2 / sum (w - w')^2), w = code * block scale in FP32
  double gain = 1;     // sum w w' / sum w^2: how much the plan's weights are larger on the whole
};

struct WeightErrorOptions {
  NumericsPlan numerics;
  DType act_dtype = DType::kBF16;  // of the kernels that will run
  int num_threads = 1;
  int64_t max_experts = 8;  // of a layer, evenly spaced: all experts of a large model would take hours
  LoadProgress progress;    // layers done and to do; may be empty
};

// Matrices whose values the plan changes, worst first; nothing where it changes none. One layer at a time is loaded
// twice, once in FP32. Errors: as load_deepseek_v3().
Expected<std::vector<WeightError>> measure_weight_errors(const std::filesystem::path& dir,
                                                         const WeightErrorOptions& options);

}  // namespace hadal
