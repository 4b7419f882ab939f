#include "cli/serve_options.h"

#include <CLI/CLI.hpp>

#include <cstdlib>

#include <fmt/ranges.h>

#include "cli/config_registry.h"

namespace hadal {
namespace {

void add_model_options(OptionRegistry& registry, ServeOptions& options) {
  registry.begin_group("Model");
  registry.add("model,--model", options.model, "Hugging Face folder of the model (required)");
  registry.add("--chat-template", options.chat_template, "File with a Jinja template, or the template itself");
  registry.add("--reasoning-parser", options.reasoning_parser, "How thoughts are split from answers")
      ->check(CLI::IsMember({"auto", "none", "deepseek_r1", "deepseek_v3"}))
      ->capture_default_str();
  registry
      .add("--generation-config", options.generation_config,
           "Sampling defaults: 'auto' takes the model folder's, 'vllm' takes none, else a folder")
      ->capture_default_str();
  registry.add("--override-generation-config", options.override_generation_config,
               "Sampling defaults that win over these, as JSON: '{\"temperature\": 0.6}'");
}

void add_engine_options(OptionRegistry& registry, ServeOptions& options) {
  constexpr int64_t kMostCount = int64_t{1} << 40;  // products of two counts and a size stay in range
  registry.begin_group("Engine");
  const auto count = [&](const char* name, int64_t& value, int64_t least, const char* help) {
    registry.add(name, value, help)->check(CLI::Range(least, kMostCount).description(""))->capture_default_str();
  };
  count("--max-model-len", options.max_model_len, 0, "Prompt and answer tokens of one request; 0: the model's");
  count("--max-num-seqs", options.max_num_seqs, 1, "Sequences in one step");
  count("--max-num-batched-tokens", options.max_num_batched_tokens, 1, "Tokens in one step");
  count("--block-size", options.block_size, 1, "Tokens per block of the KV cache; divides 256");
  count("--num-gpu-blocks-override,--num-blocks", options.num_blocks, 0, "Blocks of the KV cache; 0: from memory");
  count("--max-queued-requests", options.max_queued_requests, 1, "Waiting requests; more are answered 503");
  registry.add("--scheduling-policy", options.scheduling_policy, "fcfs, or priority: requests say who goes first")
      ->check(CLI::IsMember({"fcfs", "priority"}))
      ->capture_default_str();
  registry
      .add("--max-itl-ms", options.max_itl_ms,
           "Milliseconds from a stream's token to its next that long prompts must leave intact: they are computed in "
           "slices between decode steps; 0: off")
      ->check(CLI::Range(0.0, 1e9).description(""))
      ->capture_default_str();
  registry.add("--enable-prefix-caching,!--no-enable-prefix-caching", options.enable_prefix_caching,
               "Share the blocks of equal prompt prefixes [on]");
  registry.add("--prefix-cache-generated", options.prefix_cache_generated,
               "Share blocks of generated tokens too: faster multi-turn, answers equal only up to rounding");
  registry.add("--seed", options.seed, "Seed for requests without one")->capture_default_str();
}

void add_numerics(OptionRegistry& registry, ServeOptions& options) {
  registry.begin_group(kNumericsGroup);
  registry.add("--numerics", options.numerics,
               "bf16 (W8A16), fp8-dynamic (DeepSeek's), gaudi2 or gaudi3 (their FP8, emulated), or reference "
               "(FP32, slow) [bf16; gaudi2 with --quantization inc]");
  registry
      .add("--quantization", options.quantization,
           "inc: FP8 by Intel Neural Compressor's measurements; fp8: the weights as they are stored, as without")
      ->check(CLI::IsMember({"inc", "fp8"}));
  registry.add("--quant-config", options.quant_config, "INC's configuration file [$QUANT_CONFIG]");
  registry.add("--measurements", options.measurements,
               "Measurements for --quantization inc: a folder of INC files, or a file of hadal calibrate [the "
               "configuration's dump_stats_path]");
  registry
      .add("--gaudi-mode", options.gaudi_mode,
           "What a Gaudi profile does to weights and activations: runtime-dequant, dynamic, static, inc")
      ->capture_default_str();
  registry
      .add("--range-map", options.range_map,
           "How codes are brought into Gaudi 2's range: exact, seed (convert_for_g2.py), none (converted already)")
      ->check(CLI::IsMember({"auto", "exact", "seed", "none"}))
      ->capture_default_str();
  registry
      .add("--kv-cache-dtype", options.kv_cache_dtype,
           "auto or bfloat16; fp8 or fp8_e4m3: half the memory, keys and values rounded to E4M3, scale 1; fp8_inc: the "
           "same with the scales of --quantization inc, without it with scale 1")
      ->capture_default_str();
  registry.add("--isa", options.isa, "Kernels to use: auto, reference, portable, avx2, avx512, avx512-bf16")
      ->capture_default_str();
  registry
      .add("--threads", options.num_threads,
           "Compute threads of each rank; 0: the usable cores, divided among the ranks of this machine")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
}

void add_machine_options(OptionRegistry& registry, ServeOptions& options) {
  registry.add("--dtype", options.dtype, "auto or bfloat16")->capture_default_str();
  registry.add("--memory-utilization", options.memory_utilization, "Share of the memory limit that may be used")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  registry.begin_group("Logs");
  registry.add("--log-level", options.log_level, "debug, info, warning, error")
      ->transform(CLI::IsMember({"debug", "info", "warning", "error", "critical"}, CLI::ignore_case).description(""))
      ->capture_default_str();
  registry.add("--log-format", options.log_format, "human lines or JSON lines")
      ->check(CLI::IsMember({"human", "json"}))
      ->capture_default_str();
}

Status expect_one_of(const char* flag, const std::string& value, std::initializer_list<const char*> accepted,
                     const char* advice) {
  for (const char* name : accepted) {
    if (value == name) return {};
  }
  return make_error(ErrorCode::kUnsupported, "{} {}: this build serves {}. {}", flag, value,
                    fmt::join(accepted, " or "), advice);
}

}  // namespace

void add_numerics_options(CLI::App& command, ServeOptions& options) {
  OptionRegistry registry(command);
  add_numerics(registry, options);
}

void add_serve_options(OptionRegistry& registry, ServeOptions& options) {
  add_model_options(registry, options);
  add_engine_options(registry, options);
  add_numerics(registry, options);
  add_machine_options(registry, options);
  add_rank_options(registry, options.ranks);
}

const char* ServeOptions::numerics_variable(const char* name) const {
  if (!numerics_environment) return std::getenv(name);
  const auto found = numerics_environment->find(name);
  return found == numerics_environment->end() ? nullptr : found->second.c_str();
}

Status check_serve_options(const ServeOptions& options) {
  // Not CLI11's required(): that would hide the message about a misspelt flag.
  if (options.model.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "--model is missing: give the Hugging Face folder of a model");
  }
  HADAL_RETURN_IF_ERROR(expect_one_of("--dtype", options.dtype, {"auto", "bfloat16"},
                                      "FP8 weights are kept as they are stored; activations are BF16."));
  return check_rank_options(options.ranks);
}

}  // namespace hadal
