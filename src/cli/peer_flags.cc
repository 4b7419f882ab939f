#include "cli/peer_flags.h"

#include <CLI/CLI.hpp>
#include <string_view>
#include <utility>

#include "cli/config_registry.h"

namespace hadal {
namespace {

struct PeerFlag {
  const char* name;
  bool takes_value;
  const char* why;
  // Values that ask for what is done here anyway, each between two bars: "|auto|safetensors|". Null: any.
  const char* accepted = nullptr;
};

constexpr const char* kAlwaysOn = "this is always so here";
constexpr const char* kNoPython = "no Python code of the model folder is ever run";
constexpr const char* kNoDevice = "there is no device memory or graph to manage on the CPU";
constexpr const char* kOneBlockManager = "there is one block manager";
constexpr const char* kNoSwap = "preempted requests are recomputed, not swapped";
constexpr const char* kOwnLog = "use --log-level and --log-format";
constexpr const char* kOneRank = "work is divided by --tensor-parallel-size only";
constexpr const char* kOneProcess = "there is one process";
constexpr const char* kChunked = "prefill is chunked under --max-num-batched-tokens";
constexpr const char* kOneFolder = "the model folder is taken as it is";
constexpr const char* kTextOnly = "the model takes and gives text only";
constexpr const char* kNoWindow = "the model has no sliding window";
constexpr const char* kNoTraces = "there are /metrics and log lines instead of traces";
constexpr const char* kSameAnswers = "it would change the speed, never the answers";
constexpr const char* kNoDrafts = "no tokens are drafted";
constexpr const char* kNoAdapters = "adapters are not served";

constexpr PeerFlag kAccepted[] = {
    {"--device", true, "the device is the CPU"},
    {"--tokenizer", true, "the model folder's is used", "|MODEL|"},
    {"--tokenizer-mode", true, "there is one tokenizer per model", "|auto|slow|hf|"},
    {"--hf-config-path", true, "the model folder's is used", "|MODEL|"},
    {"--trust-remote-code", false, kNoPython},
    {"--pipeline-parallel-size", true, kOneRank, "|1|"},
    {"--data-parallel-size", true, kOneRank, "|1|"},
    {"--use-v2-block-manager", false, kOneBlockManager},
    {"--use-padding-aware-scheduling", false, "batches are not padded"},
    {"--max-num-prefill-seqs", true, kChunked},
    {"--max-num-partial-prefills", true, kChunked},
    {"--max-long-partial-prefills", true, kChunked},
    {"--long-prefill-token-threshold", true, kChunked},
    {"--enable-chunked-prefill", false, kAlwaysOn},
    {"--weights-load-device", true, "weights go straight to their place"},
    {"--num-scheduler-steps", true, "the scheduler runs every step"},
    {"--speculative-config", true, kSameAnswers},
    {"--guided-decoding-backend", true, "there is one grammar engine"},
    {"--disable-frontend-multiprocessing", false, kOneProcess},
    {"--api-server-count", true, kOneProcess},
    {"--gpu-memory-utilization", true, "use --memory-utilization"},
    {"--max-seq-len-to-capture", true, kNoDevice},
    {"--enforce-eager", false, kNoDevice},
    {"--cpu-offload-gb", true, kNoDevice},
    {"--load-format", true, "the format is safetensors", "|auto|safetensors|"},
    {"--swap-space", true, kNoSwap},
    {"--preemption-mode", true, kNoSwap},
    {"--scheduler-delay-factor", true, "requests are admitted as they come"},
    {"--stream-interval", true, "tokens are sent as they are made"},
    {"--chat-template-content-format", true, "text parts are joined before the template sees them"},
    {"--enable-log-outputs", false, "answers are never logged"},
    {"--log-error-stack", false, "errors say where they happened"},
    {"--log-config-file", true, kOwnLog},
    {"--enable-ssl-refresh", false, "restart the server for a new certificate"},
    {"--enable-request-id-headers", false, kAlwaysOn},
    {"--enable-prompt-tokens-details", false, kAlwaysOn},
    {"--enable-server-load-tracking", false, kAlwaysOn},
    {"--enable-tokenizer-info-endpoint", false, kAlwaysOn},
    {"--fingerprint-mode", true, "the fingerprint names build and numerics"},
    {"--task", true, "text is generated", "|auto|generate|"},
    {"--runner", true, "text is generated", "|auto|generate|"},
    {"--model-impl", true, "there is one implementation", "|auto|vllm|"},
    {"--config-format", true, "the format is Hugging Face's", "|auto|hf|"},
    {"--revision", true, kOneFolder},
    {"--code-revision", true, kNoPython},
    {"--tokenizer-revision", true, kOneFolder},
    {"--download-dir", true, "nothing is downloaded"},
    {"--hf-token", true, "nothing is downloaded"},
    {"--ignore-patterns", true, "nothing is downloaded"},
    {"--allowed-local-media-path", true, kTextOnly},
    {"--limit-mm-per-prompt", true, kTextOnly},
    {"--mm-processor-kwargs", true, kTextOnly},
    {"--disable-mm-preprocessor-cache", false, kTextOnly},
    {"--disable-sliding-window", false, kNoWindow},
    {"--disable-cascade-attn", false, kSameAnswers},
    {"--prefix-caching-hash-algo", true, kSameAnswers},
    {"--compilation-config", true, kNoDevice},
    {"--cuda-graph-sizes", true, kNoDevice},
    {"--disable-custom-all-reduce", false, kNoDevice},
    {"--disable-async-output-proc", false, kSameAnswers},
    {"--multi-step-stream-outputs", true, "tokens are sent as they are made"},
    {"--num-lookahead-slots", true, kSameAnswers},
    {"--speculative-model", true, kSameAnswers},
    {"--num-speculative-tokens", true, kSameAnswers},
    {"--speculative-model-quantization", true, kNoDrafts},
    {"--speculative-disable-mqa-scorer", false, kNoDrafts},
    {"--speculative-draft-tensor-parallel-size", true, kNoDrafts},
    {"--speculative-max-model-len", true, kNoDrafts},
    {"--speculative-disable-by-batch-size", true, kNoDrafts},
    {"--ngram-prompt-lookup-max", true, kNoDrafts},
    {"--ngram-prompt-lookup-min", true, kNoDrafts},
    {"--spec-decoding-acceptance-method", true, kNoDrafts},
    {"--typical-acceptance-sampler-posterior-threshold", true, kNoDrafts},
    {"--typical-acceptance-sampler-posterior-alpha", true, kNoDrafts},
    {"--disable-logprobs-during-spec-decoding", false, kNoDrafts},
    {"--model-loader-extra-config", true, "weights go straight to their place"},
    {"--override-neuron-config", true, kNoDevice},
    {"--override-pooler-config", true, "text is generated"},
    {"--additional-config", true, kNoDevice},
    {"--disable-chunked-mm-input", false, kTextOnly},
    {"--max-parallel-loading-workers", true, "weights are read by all cores"},
    {"--ray-workers-use-nsight", false, "there is no GPU to profile"},
    {"--tokenizer-pool-size", true, "use --worker-threads"},
    {"--tokenizer-pool-type", true, "use --worker-threads"},
    {"--tokenizer-pool-extra-config", true, "use --worker-threads"},
    {"--use-tqdm-on-load", false, kAlwaysOn},
    {"--otlp-traces-endpoint", true, kNoTraces},
    {"--collect-detailed-traces", true, kNoTraces},
    {"--show-hidden-metrics-for-version", true, "no metric is hidden"},
    {"--enable-sleep-mode", false, "an idle server sleeps by itself"},
    {"--enable-reasoning", false, "use --reasoning-parser; it is chosen from the model when absent"},
};

constexpr PeerFlag kRefused[] = {
    {"--middleware", true, "no Python runs in this server; put a reverse proxy in front of it (deploy/)"},
    {"--tool-parser-plugin", true, "no Python runs in this server; --tool-call-parser has the parsers there are"},
    {"--enable-lora", false, kNoAdapters},
    {"--lora-modules", true, kNoAdapters},
    {"--max-loras", true, kNoAdapters},
    {"--max-lora-rank", true, kNoAdapters},
    {"--max-cpu-loras", true, kNoAdapters},
    {"--enable-lora-bias", false, kNoAdapters},
    {"--lora-extra-vocab-size", true, kNoAdapters},
    {"--lora-dtype", true, kNoAdapters},
    {"--long-lora-scaling-factors", true, kNoAdapters},
    {"--fully-sharded-loras", false, kNoAdapters},
    {"--qlora-adapter-name-or-path", true, kNoAdapters},
    {"--enable-prompt-adapter", false, kNoAdapters},
    {"--prompt-adapters", true, kNoAdapters},
    {"--max-prompt-adapters", true, kNoAdapters},
    {"--max-prompt-adapter-token", true, kNoAdapters},
    {"--skip-tokenizer-init", false, "the server needs the tokenizer"},
    {"--logits-processor-pattern", true, "no Python runs in this server"},
    {"--scheduler-cls", true, "no Python runs in this server"},
    {"--worker-cls", true, "no Python runs in this server"},
    {"--worker-extension-cls", true, "no Python runs in this server"},
    {"--quantization-param-path", true, "scales of the cache come from --measurements"},
    {"--calculate-kv-scales", false, "scales of the cache come from --measurements, or are 1"},
    {"--kv-transfer-config", true, "prefill and decode run in one server"},
    {"--hf-overrides", true, "the model folder's config.json is what counts"},
    {"--rope-scaling", true, "the model folder's config.json is what counts"},
    {"--rope-theta", true, "the model folder's config.json is what counts"},
};

bool accepts(const PeerFlag& flag, const std::string& value, const std::string& model) {
  if (flag.accepted == nullptr) return true;
  const std::string accepted = flag.accepted;
  return accepted == "|MODEL|" ? value == model : accepted.find("|" + value + "|") != std::string::npos;
}

// Of a switch that was given and turned off: --enable-lora=False.
bool is_off(const PeerFlag& flag, const RegisteredOption& option) {
  return !flag.takes_value && parse_switch(option.option->results().back()) == false;
}

constexpr std::pair<std::string_view, std::string_view> kShortNames[] = {
    {"-tp", "--tensor-parallel-size"}, {"-pp", "--pipeline-parallel-size"}, {"-dp", "--data-parallel-size"}};

std::string with_long_name(const std::string& argument) {
  for (const auto& [short_name, name] : kShortNames) {
    if (argument == short_name || argument.starts_with(std::string(short_name) + "=")) {
      return std::string(name) + argument.substr(short_name.size());
    }
  }
  return argument;
}

bool is_switch(const CLI::App& command, const std::string& argument) {
  if (!argument.starts_with("--")) return false;
  const CLI::Option* option = command.get_option_no_throw(argument);
  return option != nullptr && option->get_items_expected_max() == 0;
}

}  // namespace

void put_peer_spellings(const CLI::App& serve, std::vector<std::string>& arguments) {
  std::vector<std::string> put;
  for (const std::string& argument : arguments) {
    const bool is_word = CLI::detail::to_lower(argument) == "true" || CLI::detail::to_lower(argument) == "false";
    if (is_word && !put.empty() && is_switch(serve, put.back())) {
      put.back() += "=" + argument;
    } else {
      put.push_back(with_long_name(argument));
    }
  }
  arguments = std::move(put);
}

void add_peer_flags(OptionRegistry& registry) {
  for (const PeerFlag& flag : kAccepted) {
    registry.add_without_effect(flag.name, flag.takes_value);
    if (std::string_view(flag.name) == "--hf-token") registry.hide_value();
  }
  for (const PeerFlag& flag : kRefused) registry.add_without_effect(flag.name, flag.takes_value);
}

Expected<std::vector<std::string>> check_peer_flags(OptionRegistry& registry, const std::string& model) {
  const auto given = [&](const PeerFlag& flag) { return registry.find(std::string(flag.name).substr(2)); };
  for (const PeerFlag& flag : kRefused) {
    if (!given(flag)->is_set() || is_off(flag, *given(flag))) continue;
    return make_error(ErrorCode::kInvalidArgument, "{} ({}) cannot be obeyed: {}", flag.name, given(flag)->origin,
                      flag.why);
  }
  std::vector<std::string> warnings;
  for (const PeerFlag& flag : kAccepted) {
    const RegisteredOption& option = *given(flag);
    if (!option.is_set()) continue;
    const std::string value = flag.takes_value ? option.option->results().back() : "";
    if (!accepts(flag, value, model)) {
      return make_error(ErrorCode::kInvalidArgument, "{} {} ({}) cannot be obeyed: {}", flag.name, value, option.origin,
                        flag.why);
    }
    warnings.push_back(fmt::format("{} is accepted and has no effect: {}", flag.name, flag.why));
  }
  return warnings;
}

}  // namespace hadal
