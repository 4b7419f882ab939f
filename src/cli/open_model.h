// Everything `hadal serve` decides before it reads a weight: kernels, limits, and whether it all fits.
#pragma once

#include <cstdint>

#include "base/status.h"
#include "cli/memory_plan.h"
#include "cli/serve_options.h"
#include "cli/serving_folder.h"
#include "kernels/kernels.h"
#include "model/config.h"

namespace hadal {

struct OpenedModel {
  const KernelTable* kernels = nullptr;
  DType kv_dtype = DType::kBF16;  // of the latent cache
  ModelConfig config;
  ServingFolder folder;
  int64_t max_model_len = 0;  // tokens
  int num_threads = 0;
  MemoryRequest memory_request;
  MemoryPlan memory;
};

// Checks the whole folder and the memory. Errors: the first problem that `hadal inspect` would list, a flag that does
// not go with the model, or kResourceExhausted with the arithmetic.
Expected<OpenedModel> open_model(const ServeOptions& options);

}  // namespace hadal
