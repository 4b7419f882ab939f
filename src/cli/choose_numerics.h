// From flags, the environment and the model folder to a numerics plan: which profile, which Gaudi mode, which scales.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/serve_options.h"
#include "kernels/kernels.h"
#include "model/config.h"
#include "quant/numerics_plan.h"

namespace hadal {

struct NumericsChoice {
  const KernelTable* kernels = nullptr;
  NumericsPlan plan;
  DType kv_dtype = DType::kBF16;      // of the latent cache
  std::string key;                    // names the arithmetic: "gaudi2-inc-maxabs_hw-kv_fp8"; of certificates
  std::string summary;                // one line for people
  std::vector<std::string> warnings;  // about the folder and the measurements
  uint64_t inc_inputs_hash = 0;       // inc_scale_inputs_hash(), with INC
};

// Kernels alone: what can be said before the folder is read.
Expected<const KernelTable*> choose_kernels(const ServeOptions& options);

// Errors: kInvalidArgument for flags that contradict each other, whatever is wrong with config or measurement files.
// Reads samples of the weights where a Gaudi 2 has to know whether they were converted.
Expected<NumericsChoice> choose_numerics(const ServeOptions& options, const ModelConfig& config);

// What ranks must have in common beside the folder: the arithmetic, and the INC config and measurements.
std::string numerics_hash(const NumericsChoice& choice);

}  // namespace hadal
