#include "cli/peer_environment.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "base/names.h"
#include "quant/inc_settings.h"

namespace hadal {
namespace {

enum class Use {
  kOption,  // its value is the option's
  kRead,    // read where the numerics are chosen
  kNone,    // accepted, no meaning here
};

struct PeerVariable {
  const char* name;
  Use use;
  const char* text;  // the option, what it does, or why it does nothing
};

constexpr const char* kCompiled =
    "nothing is compiled or captured at run time: there are no graphs, recipes or warm-up";
constexpr const char* kBuckets =
    "batches are not padded to buckets (`hadal plan buckets` shows those that it asks for)";
constexpr const char* kSpeedOnly = "it changes how fast a Gaudi computes, not what";
constexpr const char* kNoCards = "the device is the CPU";
constexpr const char* kRayLogs = "logs of every rank are shown, and none of its numbers pass through Ray";
constexpr const char* kOwnRanks =
    "ranks and experts are divided by --tensor-parallel-size and --enable-expert-parallel";
constexpr const char* kOwnForm = "the attention's form follows from a token's position, so that answers do not vary";
constexpr const char* kNotEmulated = "this variant of a Gaudi's arithmetic is not emulated";
constexpr const char* kOneEngine = "there is one engine and one attention";
constexpr const char* kOneMemory = "use --memory-utilization";

constexpr PeerVariable kTable[] = {
    {"VLLM_API_KEY", Use::kOption, "api-key"},
    {"VLLM_LOGGING_LEVEL", Use::kOption, "log-level"},
    {"VLLM_SERVER_DEV_MODE", Use::kOption, "dev-mode"},
    {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE", Use::kOption, "keep-alive-timeout"},
    {"GLOO_SOCKET_IFNAME", Use::kOption, "rank-interface"},
    {"HCCL_SOCKET_IFNAME", Use::kOption, "rank-interface"},
    {"VLLM_HOST_IP", Use::kOption, "rank-interface"},

    {"QUANT_CONFIG", Use::kRead, "INC's configuration file, for --quantization inc"},
    {"VLLM_REQUANT_FP8_INC", Use::kRead, "1 together with QUANT_CONFIG: --quantization inc"},
    {"INC_MEASUREMENT_DUMP_PATH_PREFIX", Use::kRead, "folder below which INC's dump_stats_path lies"},
    {"INC_FORCE_NAIVE_SCALING", Use::kRead, "1: scales are not rounded to the device's"},
    {"INC_FORCE_SCALE_FP32", Use::kRead, "1: scales are computed in FP32"},
    {"VLLM_ENABLE_RUNTIME_DEQUANT", Use::kRead, "1: --gaudi-mode runtime-dequant, for --numerics gaudi2 or gaudi3"},

    {"PT_HPU_RECIPE_CACHE_CONFIG", Use::kNone, kCompiled},
    {"VLLM_SKIP_WARMUP", Use::kNone, kCompiled},
    {"VLLM_GRAPH_RESERVED_MEM", Use::kNone, kCompiled},
    {"VLLM_GRAPH_PROMPT_RATIO", Use::kNone, kCompiled},
    {"VLLM_GRAPH_PROMPT_STRATEGY", Use::kNone, kCompiled},
    {"VLLM_GRAPH_DECODE_STRATEGY", Use::kNone, kCompiled},
    {"VLLM_HPU_MARK_SCALES_AS_CONST", Use::kNone, kCompiled},
    {"PT_HPU_LAZY_MODE", Use::kNone, kCompiled},
    {"PT_HPU_ENABLE_LAZY_COLLECTIVES", Use::kNone, kCompiled},
    {"PT_HPUGRAPH_DISABLE_TENSOR_CACHE", Use::kNone, kCompiled},
    {"PT_HPU_WEIGHT_SHARING", Use::kNone, kCompiled},
    {"PT_COMPILE_ONLY_MODE", Use::kNone, kCompiled},

    {"VLLM_PROMPT_BS_BUCKET_MIN", Use::kNone, kBuckets},
    {"VLLM_PROMPT_BS_BUCKET_STEP", Use::kNone, kBuckets},
    {"VLLM_PROMPT_BS_BUCKET_MAX", Use::kNone, kBuckets},
    {"VLLM_PROMPT_BS_BUCKET_LIMIT", Use::kNone, kBuckets},
    {"VLLM_PROMPT_SEQ_BUCKET_MIN", Use::kNone, kBuckets},
    {"VLLM_PROMPT_SEQ_BUCKET_STEP", Use::kNone, kBuckets},
    {"VLLM_PROMPT_SEQ_BUCKET_MAX", Use::kNone, kBuckets},
    {"VLLM_PROMPT_SEQ_BUCKET_LIMIT", Use::kNone, kBuckets},
    {"VLLM_DECODE_BS_BUCKET_MIN", Use::kNone, kBuckets},
    {"VLLM_DECODE_BS_BUCKET_STEP", Use::kNone, kBuckets},
    {"VLLM_DECODE_BS_BUCKET_MAX", Use::kNone, kBuckets},
    {"VLLM_DECODE_BS_BUCKET_LIMIT", Use::kNone, kBuckets},
    {"VLLM_DECODE_BLOCK_BUCKET_MIN", Use::kNone, kBuckets},
    {"VLLM_DECODE_BLOCK_BUCKET_STEP", Use::kNone, kBuckets},
    {"VLLM_DECODE_BLOCK_BUCKET_MAX", Use::kNone, kBuckets},
    {"VLLM_DECODE_BLOCK_BUCKET_LIMIT", Use::kNone, kBuckets},
    {"BUCKET_PADDING_RATIO", Use::kNone, kBuckets},

    {"VLLM_DELAYED_SAMPLING", Use::kNone, kSpeedOnly},
    {"VLLM_CONTIGUOUS_PA", Use::kNone, kSpeedOnly},
    {"VLLM_MOE_N_SLICE", Use::kNone, kSpeedOnly},
    {"VLLM_MOE_SLICE_LENGTH", Use::kNone, kSpeedOnly},
    {"VLLM_SUPPORT_MOE_CHUNK", Use::kNone, kSpeedOnly},
    {"PT_HPU_MOE_CHUNK", Use::kNone, kSpeedOnly},
    {"PT_HPU_MOE_TOKEN_BOUNDARY", Use::kNone, kSpeedOnly},
    {"VLLM_USE_STATIC_MOE", Use::kNone, kSpeedOnly},
    {"VLLM_OPTIMIZE_WITH_PARTIAL_EXPERTS", Use::kNone, kSpeedOnly},
    {"VLLM_DMOE_DYNAMIC_SCALE", Use::kNone, kNotEmulated},
    {"VLLM_USE_FP8_MATMUL", Use::kNone, kNotEmulated},
    {"VLLM_MLA_PERFORM_MATRIX_ABSORPTION", Use::kNone, kOwnForm},
    {"VLLM_MLA_DISABLE_REQUANTIZATION", Use::kNone, kOwnForm},

    {"HABANA_VISIBLE_DEVICES", Use::kNone, kNoCards},
    {"HABANA_VISIBLE_MODULES", Use::kNone, kNoCards},
    {"HABANA_LOGS", Use::kNone, kNoCards},
    {"HCCL_OVER_OFI", Use::kNone, kNoCards},
    {"HCCL_GAUDI_DIRECT", Use::kNone, kNoCards},
    {"NCCL_SOCKET_IFNAME", Use::kNone, kNoCards},
    {"VLLM_GPU_MEMORY_UTILIZATION", Use::kNone, kOneMemory},
    {"VLLM_CPU_KVCACHE_SPACE", Use::kNone, kOneMemory},
    {"VLLM_EP_SIZE", Use::kNone, kOwnRanks},
    {"VLLM_DP_SIZE", Use::kNone, kOwnRanks},
    {"VLLM_DP_RANK", Use::kNone, kOwnRanks},
    {"VLLM_DP_OPT", Use::kNone, kOwnRanks},
    {"VLLM_RAY_DISABLE_LOG_TO_DRIVER", Use::kNone, kRayLogs},
    {"RAY_IGNORE_UNHANDLED_ERRORS", Use::kNone, kRayLogs},
    {"VLLM_USE_V1", Use::kNone, kOneEngine},
    {"VLLM_ATTENTION_BACKEND", Use::kNone, kOneEngine},
    {"VLLM_WORKER_MULTIPROC_METHOD", Use::kNone, kOneEngine},
};

const std::string* find_value(const Environment& environment, std::string_view name) {
  for (const auto& [known, value] : environment) {
    if (known == name && !value.empty()) return &value;
  }
  return nullptr;
}

constexpr const char* kSwitches[] = {"VLLM_REQUANT_FP8_INC", "VLLM_ENABLE_RUNTIME_DEQUANT", "INC_FORCE_NAIVE_SCALING",
                                     "INC_FORCE_SCALE_FP32"};

Expected<bool> is_on(const Environment& environment, const char* name) {
  return read_inc_switch(
      [&](const char* of) {
        const std::string* value = find_value(environment, of);
        return value == nullptr ? nullptr : value->c_str();
      },
      name);
}

std::string text_of(OptionRegistry& registry, const char* option) {
  const Json value = registry.find(option) == nullptr ? Json() : registry.find(option)->value();
  return value.is_string() ? value.get<std::string>() : "";
}

// Whether nobody has asked for anything that INC's numerics contradict.
bool may_be_inc(OptionRegistry& registry) {
  const RegisteredOption* quantization = registry.find("quantization");
  if (quantization == nullptr || quantization->is_set()) return false;
  const std::string numerics = text_of(registry, "numerics");
  const std::string mode = text_of(registry, "gaudi-mode");
  return (numerics.empty() || numerics.starts_with("gaudi")) && (mode == "auto" || mode == "inc");
}

// The fork quantises by INC where both are set; no flag of its command line says so.
Status apply_inc(OptionRegistry& registry, const Environment& environment, std::vector<std::string>& warnings) {
  const std::string* config = find_value(environment, "QUANT_CONFIG");
  for (const char* name : kSwitches) HADAL_RETURN_IF_ERROR(is_on(environment, name));
  const bool asked = is_on(environment, "VLLM_REQUANT_FP8_INC").value();
  if (asked && config == nullptr) {
    warnings.push_back("VLLM_REQUANT_FP8_INC has no effect without QUANT_CONFIG");
  }
  if (asked && config != nullptr && may_be_inc(registry)) {
    HADAL_RETURN_IF_ERROR(set_option(*registry.find("quantization"), {"inc"}, false, "VLLM_REQUANT_FP8_INC"));
  }
  RegisteredOption* quant_config = registry.find("quant-config");
  if (config == nullptr || quant_config == nullptr || quant_config->is_set()) return {};
  if (text_of(registry, "quantization") == "inc") return set_option(*quant_config, {*config}, false, "QUANT_CONFIG");
  warnings.push_back("QUANT_CONFIG is not read without --quantization inc (or VLLM_REQUANT_FP8_INC=1)");
  return {};
}

const PeerVariable* find_peer(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kTable), std::end(kTable), [&](const PeerVariable& known) { return known.name == name; });
  return found == std::end(kTable) ? nullptr : found;
}

void note(OptionRegistry& registry, const PeerVariable& known, const std::string& value,
          std::map<std::string, std::string>& names_by_reason) {
  RegisteredOption* option = known.use == Use::kOption ? registry.find(known.text) : nullptr;
  if (option != nullptr && option->origin == known.name) return;  // its row says it
  if (option != nullptr) {
    registry.note_variable({known.name, option->secret ? "***" : value, "overruled by " + option->origin, false});
    return;
  }
  const std::string text = known.text;
  registry.note_variable({known.name, value, text, known.use == Use::kRead});
  if (known.use == Use::kRead) return;
  std::string& names = names_by_reason[text];
  names += (names.empty() ? "" : ", ") + std::string(known.name);
}

void warn_of_near_misses(const Environment& environment, std::vector<std::string>& warnings) {
  constexpr size_t kSlips = 2;  // wrong, missing, added letters; two that changed places
  constexpr size_t kShortest = 8;
  std::vector<std::string> names;
  for (const PeerVariable& known : kTable) names.emplace_back(known.name);
  for (const auto& [name, value] : environment) {
    if (name.size() < kShortest || name.starts_with("HADAL_") || find_peer(name) != nullptr) continue;
    const std::string nearest = closest_name(name, names, kSlips);
    if (!nearest.empty()) warnings.push_back(fmt::format("{} is not read (did you mean {}?)", name, nearest));
  }
}

}  // namespace

void add_peer_environment(OptionRegistry& registry) {
  for (const PeerVariable& known : kTable) {
    if (known.use != Use::kOption) continue;
    if (RegisteredOption* option = registry.find(known.text)) option->peer_variables.emplace_back(known.name);
  }
}

Status apply_peer_environment(OptionRegistry& registry, const Environment& environment,
                              std::vector<std::string>& warnings) {
  HADAL_RETURN_IF_ERROR(apply_inc(registry, environment, warnings));
  std::map<std::string, std::string> names_by_reason;
  for (const PeerVariable& known : kTable) {
    if (const std::string* value = find_value(environment, known.name)) note(registry, known, *value, names_by_reason);
  }
  for (const auto& [reason, names] : names_by_reason) {
    warnings.push_back(fmt::format("environment: {}: accepted, no meaning here: {}", names, reason));
  }
  warn_of_near_misses(environment, warnings);
  return {};
}

}  // namespace hadal
