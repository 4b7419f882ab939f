// Flags of `hadal serve` about the model and the engine: vLLM's names where vLLM has the thing. Those of the HTTP side
// are in server_flags.h.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/rank_options.h"

namespace CLI {
class App;
}

namespace hadal {

struct ServeOptions {
  std::string model;
  std::string chat_template;  // a file or the template itself; empty: the model folder's
  std::string reasoning_parser = "auto";
  std::string generation_config = "auto";  // see cli/sampling_defaults.h
  std::string override_generation_config;  // JSON object; empty: nothing

  int64_t max_model_len = 0;  // 0: max_position_embeddings, or what the cache holds
  int64_t max_num_seqs = 32;
  int64_t max_num_batched_tokens = 2048;
  int64_t block_size = 64;
  int64_t num_blocks = 0;  // 0: from memory
  int64_t max_queued_requests = 1024;
  std::string scheduling_policy = "fcfs";
  double max_itl_ms = 0;  // 0: off
  bool enable_prefix_caching = true;
  bool prefix_cache_generated = false;
  uint64_t seed = 0;

  std::string isa = "auto";
  std::string numerics;      // empty: bf16, or gaudi2 with --quantization inc
  std::string quantization;  // empty, "inc" or "fp8"
  std::string quant_config;  // INC's JSON; empty: $QUANT_CONFIG
  std::string measurements;  // folder or file; empty: what the INC config says
  std::string gaudi_mode = "auto";
  std::string range_map = "auto";
  std::string dtype = "auto";
  std::string kv_cache_dtype = "auto";
  int num_threads = 0;              // of each rank; 0: one per core, divided among the ranks of this machine
  double memory_utilization = 0.9;  // share of the memory limit for weights, cache and workspace

  RankOptions ranks;
  // Not a flag: the world sizes that a calibration observes expert outputs for; empty: the model is not calibrated.
  std::vector<int64_t> calibrated_world_sizes;
  // Not a flag: rank 0's variables that decide about numbers (kNumericsVariables), on the other ranks, which do not
  // read their own; null: this process reads its environment.
  std::optional<std::map<std::string, std::string>> numerics_environment;

  std::string log_level = "info";
  std::string log_format = "human";

  bool has_priorities() const { return scheduling_policy == "priority"; }
  // Of numerics_environment, else of the environment; null when it is unset.
  const char* numerics_variable(const char* name) const;
};

// Variables that decide what a step computes. QUANT_CONFIG is among the options: quant_config.
inline constexpr const char* kNumericsVariables[] = {"INC_MEASUREMENT_DUMP_PATH_PREFIX", "INC_FORCE_NAIVE_SCALING",
                                                     "INC_FORCE_SCALE_FP32", "VLLM_ENABLE_RUNTIME_DEQUANT"};

class OptionRegistry;

void add_serve_options(OptionRegistry& registry, ServeOptions& options);
// The part of them that says how the model computes: numerics, cache dtype, kernels, threads. They stand under this
// heading in --help.
inline constexpr const char* kNumericsGroup = "Numerics";
void add_numerics_options(CLI::App& command, ServeOptions& options);

// Refuses values that no build can serve, naming flag, value and what is possible.
Status check_serve_options(const ServeOptions& options);

}  // namespace hadal
