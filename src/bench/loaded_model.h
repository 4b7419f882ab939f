// A model folder opened for measuring: config, kernels, weights in RAM, and what loading cost.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "kernels/kernels.h"
#include "model/config.h"
#include "model/forward_model.h"
#include "model/memory_needs.h"
#include "model/rank_slice.h"

namespace hadal {

struct ModelFlags {
  std::filesystem::path dir;
  std::string isa = "auto";
  std::string kv_cache_dtype = "auto";  // as select_kv_dtype() takes it
  int num_threads = 0;                  // 0: one per core
  RankSlice slice;                      // of several ranks: the part of this one,
  // and how it becomes the whole, once loaded; empty: it is.
  std::function<Expected<std::unique_ptr<ForwardModel>>(std::unique_ptr<ForwardModel>)> join;
};

struct LoadedModel {
  ModelConfig config;
  const KernelTable* kernels = nullptr;
  DType kv_dtype = DType::kBF16;
  int num_threads = 0;
  std::unique_ptr<ForwardModel> model;
  uint64_t weight_bytes = 0;  // in RAM, of this rank
  uint64_t read_bytes = 0;    // from the checkpoint
  double seconds = 0;         // opening, reading and packing
};

// With a progress bar on stderr. Errors: as inspect_model() and load_deepseek_v3().
Expected<LoadedModel> load_for_bench(const ModelFlags& flags);

// {path, hidden_size, ...}: the sizes that decide speed.
Json model_json(const std::filesystem::path& dir, const ModelConfig& config);

// Config of a model folder, or of a config.json without weights.
Expected<ModelConfig> read_config(const std::filesystem::path& dir_or_file);

// The multiply rate that a table's kernels are held against: "bf16" or "fp32".
const char* multiply_format(const KernelTable& kernels);

// Cache blocks that fit beside what is loaded, with a workspace for `limits` and `extra_bytes` for others; 0: none.
int64_t blocks_that_fit(const LoadedModel& loaded, const WorkspaceLimits& limits, int64_t block_size,
                        uint64_t extra_bytes);

}  // namespace hadal
