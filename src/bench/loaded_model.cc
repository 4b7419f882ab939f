#include "bench/loaded_model.h"

#include <chrono>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "base/progress.h"
#include "base/resource_limits.h"
#include "bench/tuning_cache.h"
#include "formats/hf_config.h"
#include "model/inspect.h"
#include "model/load_model.h"

namespace hadal {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;

}  // namespace

Expected<LoadedModel> load_for_bench(const ModelFlags& flags) {
  LoadedModel loaded;
  HADAL_ASSIGN_OR_RETURN(loaded.kernels, select_kernels(flags.isa));
  HADAL_ASSIGN_OR_RETURN(loaded.kv_dtype, select_kv_dtype(flags.kv_cache_dtype, *loaded.kernels));
  const auto begin = std::chrono::steady_clock::now();
  ModelInspection inspection = inspect_model(flags.dir, *loaded.kernels);
  if (!inspection.problems.empty()) return tl::unexpected<Error>(std::move(inspection.problems.front()));
  loaded.config = *inspection.config;
  loaded.weight_bytes = inspection.weight_memory_bytes;
  if (flags.slice.world_size > 1) {
    HADAL_ASSIGN_OR_RETURN(loaded.weight_bytes, weight_memory_bytes(flags.dir, *loaded.kernels, {}, flags.slice));
  }
  loaded.num_threads = apply_tuning(*loaded.kernels, flags.num_threads);

  ProgressBar bar("loading", "B");
  LoadOptions options;
  options.kernels = loaded.kernels;
  options.kv_dtype = loaded.kv_dtype;
  options.num_threads = loaded.num_threads;
  options.pin_threads = true;
  options.slice = flags.slice;
  options.progress = [&](uint64_t done_bytes, uint64_t total_bytes) {
    bar.update(done_bytes, total_bytes);
    loaded.read_bytes = total_bytes;
  };
  HADAL_ASSIGN_OR_RETURN(loaded.model, load_deepseek_v3(flags.dir, options));
  if (flags.join) {
    HADAL_ASSIGN_OR_RETURN(loaded.model, flags.join(std::move(loaded.model)));
  }
  loaded.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return loaded;
}

Json model_json(const std::filesystem::path& dir, const ModelConfig& config) {
  return {{"path", dir.string()},
          {"hidden_size", config.hidden_size},
          {"num_hidden_layers", config.num_hidden_layers},
          {"first_k_dense_replace", config.first_k_dense_replace},
          {"num_attention_heads", config.num_attention_heads},
          {"q_lora_rank", config.q_lora_rank},
          {"kv_lora_rank", config.kv_lora_rank},
          {"intermediate_size", config.intermediate_size},
          {"moe_intermediate_size", config.moe_intermediate_size},
          {"n_routed_experts", config.router.n_routed_experts},
          {"num_experts_per_tok", config.router.num_experts_per_tok},
          {"n_shared_experts", config.n_shared_experts},
          {"vocab_size", config.vocab_size},
          {"fp8_weights", config.fp8_weights}};
}

Expected<ModelConfig> read_config(const std::filesystem::path& dir_or_file) {
  std::error_code ignored;
  const bool is_dir = std::filesystem::is_directory(dir_or_file, ignored);
  const std::filesystem::path path = is_dir ? dir_or_file / "config.json" : dir_or_file;
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxConfigBytes));
  auto hf = parse_hf_config(text);
  if (!hf) return forward_error(std::move(hf), path.string());
  auto config = make_model_config(*hf);
  if (!config) return forward_error(std::move(config), path.string());
  return *std::move(config);
}

const char* multiply_format(const KernelTable& kernels) {
  const std::string_view name = kernels.name;
  const bool in_bf16 = name.find("bf16") != name.npos || name.find("amx") != name.npos;
  return in_bf16 ? "bf16" : "fp32";
}

int64_t blocks_that_fit(const LoadedModel& loaded, const WorkspaceLimits& limits, int64_t block_size,
                        uint64_t extra_bytes) {
  // Left for the allocator, the program and the page cache.
  constexpr double kUsableShare = 0.95;
  const auto available = available_memory_bytes();
  if (!available) return int64_t{1} << 30;
  const double room = kUsableShare * static_cast<double>(*available) - static_cast<double>(extra_bytes) -
                      static_cast<double>(workspace_bytes(loaded.config, *loaded.kernels, limits));
  const double block_bytes = static_cast<double>(loaded.model->kv_bytes_per_token() * block_size);
  return room > 0 ? static_cast<int64_t>(room / block_bytes) : 0;
}

}  // namespace hadal
