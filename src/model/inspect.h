// Checks a model folder without loading it: config.json, and every tensor against the weight plan.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/hf_config.h"
#include "kernels/kernels.h"
#include "model/config.h"
#include "model/rank_slice.h"
#include "quant/numerics_plan.h"

namespace hadal {

// One line of the table of sizes.
struct WeightGroupSize {
  std::string group;        // "attention", "routed experts", ...
  int64_t num_tensors = 0;  // scales included
  uint64_t checkpoint_bytes = 0;
};

struct ModelInspection {
  HfConfig hf;                         // with every key met
  std::optional<ModelConfig> config;   // when config.json is usable
  std::vector<Error> problems;         // empty: load_deepseek_v3() would accept the folder, memory permitting
  std::vector<WeightGroupSize> sizes;  // of what could be read, groups that occur only
  uint64_t checkpoint_bytes = 0;
  uint64_t weight_memory_bytes = 0;  // RAM that the weights will take; 0 with problems
};

// Reads config.json, the index and the shards' headers, no weights. Never fails: everything wrong is in `problems`.
// Memory is counted for `kernels`.
ModelInspection inspect_model(const std::filesystem::path& dir, const KernelTable& kernels);

// RAM that the weights of a folder without problems, or a rank's part of them, will take under a numerics plan. Errors
// also: check_rank_slice()'s.
Expected<uint64_t> weight_memory_bytes(const std::filesystem::path& dir, const KernelTable& kernels,
                                       const NumericsPlan& numerics, const RankSlice& slice = {});

}  // namespace hadal
