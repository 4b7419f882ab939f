#include "cli/serve_options.h"

#include <CLI/CLI.hpp>

#include <fmt/ranges.h>

#include "cli/peer_flags.h"

namespace hadal {
namespace {

void add_listen_options(CLI::App& command, ServeOptions& options) {
  command.add_option("--model", options.model, "Hugging Face folder of the model (required)");
  command.add_option("--served-model-name", options.served_model_names,
                     "Names clients may use; the first is reported [the --model string]");
  command.add_option("--host", options.host, "Address to listen on")->capture_default_str();
  command.add_option("--port", options.port, "Port to listen on; 0 takes a free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command.add_option("--api-key", options.api_keys, "Keys clients must send; several are allowed")
      ->envname("VLLM_API_KEY");
  command.add_option("--chat-template", options.chat_template, "File with a Jinja template, or the template itself");
  command.add_option("--reasoning-parser", options.reasoning_parser, "How thoughts are split from answers")
      ->check(CLI::IsMember({"auto", "none", "deepseek_r1", "deepseek_v3"}))
      ->capture_default_str();
  command
      .add_option("--generation-config", options.generation_config,
                  "Sampling defaults: 'auto' takes the model folder's, 'vllm' takes none")
      ->check(CLI::IsMember({"auto", "vllm"}))
      ->capture_default_str();
  command
      .add_option("--shutdown-timeout", options.shutdown_timeout_s, "Seconds that running requests get after SIGTERM")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

void add_engine_options(CLI::App& command, ServeOptions& options) {
  constexpr int64_t kMostCount = int64_t{1} << 40;  // products of two counts and a size stay in range
  const auto count = [&](const char* name, int64_t& value, int64_t least, const char* help) {
    command.add_option(name, value, help)->check(CLI::Range(least, kMostCount).description(""))->capture_default_str();
  };
  count("--max-model-len", options.max_model_len, 0, "Prompt and answer tokens of one request; 0: the model's");
  count("--max-num-seqs", options.max_num_seqs, 1, "Sequences in one step");
  count("--max-num-batched-tokens", options.max_num_batched_tokens, 1, "Tokens in one step");
  count("--block-size", options.block_size, 1, "Tokens per block of the KV cache; divides 256");
  count("--num-gpu-blocks-override,--num-blocks", options.num_blocks, 0, "Blocks of the KV cache; 0: from memory");
  count("--max-queued-requests", options.max_queued_requests, 1, "Waiting requests; more are answered 503");
  command.add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", options.enable_prefix_caching,
                   "Share the blocks of equal prompt prefixes [on]");
  command.add_flag("--prefix-cache-generated", options.prefix_cache_generated,
                   "Share blocks of generated tokens too: faster multi-turn, answers equal only up to rounding");
  command.add_option("--seed", options.seed, "Seed for requests without one")->capture_default_str();
}

void add_machine_options(CLI::App& command, ServeOptions& options) {
  command.add_option("--dtype", options.dtype, "auto or bfloat16")->capture_default_str();
  command.add_option("--tensor-parallel-size", options.tensor_parallel_size, "Ranks; this build runs 1, on all cores")
      ->capture_default_str();
  command.add_option("--memory-utilization", options.memory_utilization, "Share of the memory limit that may be used")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  command.add_option("--log-level", options.log_level, "debug, info, warning, error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->capture_default_str();
  command.add_option("--log-format", options.log_format, "human lines or JSON lines")
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
  command.add_option("--numerics", options.numerics,
                     "bf16 (W8A16), fp8-dynamic (DeepSeek's), gaudi2 or gaudi3 (their FP8, emulated), or reference "
                     "(FP32, slow) [bf16; gaudi2 with --quantization inc]");
  command
      .add_option("--quantization", options.quantization,
                  "inc: FP8 by Intel Neural Compressor's measurements; fp8: the weights as they are stored, as without")
      ->check(CLI::IsMember({"inc", "fp8"}));
  command.add_option("--quant-config", options.quant_config, "INC's configuration file [$QUANT_CONFIG]");
  command.add_option("--measurements", options.measurements,
                     "Measurements for --quantization inc: a folder of INC files, or a file of hadal calibrate [the "
                     "configuration's dump_stats_path]");
  command
      .add_option("--gaudi-mode", options.gaudi_mode,
                  "What a Gaudi profile does to weights and activations: runtime-dequant, dynamic, static, inc")
      ->capture_default_str();
  command
      .add_option("--range-map", options.range_map,
                  "How codes are brought into Gaudi 2's range: exact, seed (convert_for_g2.py), none (converted "
                  "already)")
      ->check(CLI::IsMember({"auto", "exact", "seed", "none"}))
      ->capture_default_str();
  command
      .add_option("--kv-cache-dtype", options.kv_cache_dtype,
                  "auto or bfloat16; fp8 or fp8_e4m3: half the memory, keys and values rounded to E4M3, scale 1; "
                  "fp8_inc: the same with INC's scales")
      ->capture_default_str();
  command.add_option("--isa", options.isa, "Kernels to use: auto, reference, portable, avx2, avx512, avx512-bf16")
      ->capture_default_str();
  command.add_option("--threads", options.num_threads, "Compute threads; 0: one per usable core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
}

void add_serve_options(CLI::App& command, ServeOptions& options) {
  add_listen_options(command, options);
  add_engine_options(command, options);
  add_numerics_options(command, options);
  add_machine_options(command, options);
  add_peer_flags(command);
}

Status check_serve_options(const ServeOptions& options) {
  // Not CLI11's required(): that would hide the message about a misspelt flag.
  if (options.model.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "--model is missing: give the Hugging Face folder of a model");
  }
  HADAL_RETURN_IF_ERROR(expect_one_of("--dtype", options.dtype, {"auto", "bfloat16"},
                                      "FP8 weights are kept as they are stored; activations are BF16."));
  if (options.tensor_parallel_size != 1) {
    return make_error(ErrorCode::kUnsupported,
                      "--tensor-parallel-size {}: this build runs one rank, which uses all cores of the machine. "
                      "Leave the flag out or give 1.",
                      options.tensor_parallel_size);
  }
  return {};
}

}  // namespace hadal
