#include "cli/sampling_defaults.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "base/json.h"
#include "base/names.h"

namespace hadal {
namespace {

constexpr const char* kFlag = "--override-generation-config";

void take(const GenerationConfig& config, SamplingDefaults& defaults) {
  if (config.do_sample == false) defaults.temperature = 0.0F;
  if (config.temperature) defaults.temperature = static_cast<float>(*config.temperature);
  if (config.top_p) defaults.top_p = static_cast<float>(*config.top_p);
  if (config.top_k) defaults.top_k = static_cast<int32_t>(*config.top_k);
  if (config.repetition_penalty) defaults.repetition_penalty = static_cast<float>(*config.repetition_penalty);
  if (config.max_new_tokens) defaults.max_new_tokens = config.max_new_tokens;
}

Status take_min_p(const Json& value, SamplingDefaults& defaults) {
  if (!value.is_number() || value.get<double>() < 0 || value.get<double>() > 1) {
    return make_error(ErrorCode::kInvalidArgument, "{}: min_p is {}, expected a number from 0 to 1", kFlag,
                      dump_json(value));
  }
  defaults.min_p = value.get<float>();
  return {};
}

// The keys that have an effect, as vLLM reads them.
Status check_keys(const Json& overrides) {
  static const std::vector<std::string> kKnown = {"temperature",        "top_p",         "top_k", "min_p", "do_sample",
                                                  "repetition_penalty", "max_new_tokens"};
  for (const auto& [key, value] : overrides.items()) {
    if (std::find(kKnown.begin(), kKnown.end(), key) != kKnown.end()) continue;
    const std::string nearest = closest_name(key, kKnown);
    return make_error(ErrorCode::kInvalidArgument, "{}: '{}' is no sampling parameter{}", kFlag, key.substr(0, 80),
                      nearest.empty() ? fmt::format("; there are {}", fmt::join(kKnown, ", "))
                                      : fmt::format(" (did you mean {}?)", nearest));
  }
  return {};
}

Status apply_overrides(const std::string& text, SamplingDefaults& defaults) {
  auto parsed = parse_json(text, {.max_bytes = size_t{1} << 20, .max_depth = 16, .refuse_duplicate_keys = true});
  if (!parsed) return make_error(ErrorCode::kInvalidArgument, "{}: {}", kFlag, parsed.error().message);
  if (!parsed->is_object()) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {}, expected a JSON object", kFlag, parsed->type_name());
  }
  HADAL_RETURN_IF_ERROR(check_keys(*parsed));
  if (const auto min_p = parsed->find("min_p"); min_p != parsed->end()) {
    HADAL_RETURN_IF_ERROR(take_min_p(*min_p, defaults));
    parsed->erase(min_p);
  }
  const auto config = parse_generation_config(dump_json(*parsed));
  if (!config) return make_error(ErrorCode::kInvalidArgument, "{}: {}", kFlag, config.error().message);
  take(*config, defaults);
  return {};
}

}  // namespace

Expected<SamplingDefaults> choose_sampling_defaults(const std::string& source, const std::string& overrides,
                                                    const GenerationConfig& of_model) {
  SamplingDefaults defaults;
  if (source == "auto") {
    take(of_model, defaults);
  } else if (source != "vllm") {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(std::filesystem::path(source) / "generation_config.json", ignored)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "--generation-config {}: expected auto, vllm, or a folder with a generation_config.json",
                        source);
    }
    HADAL_ASSIGN_OR_RETURN(const GenerationConfig config, load_generation_config(source));
    take(config, defaults);
  }
  if (!overrides.empty()) HADAL_RETURN_IF_ERROR(apply_overrides(overrides, defaults));
  return defaults;
}

std::string describe(const SamplingDefaults& defaults) {
  std::vector<std::string> parts;
  const auto add = [&](const char* name, const auto& value) {
    if (value) parts.push_back(fmt::format("{} {}", name, *value));
  };
  add("temperature", defaults.temperature);
  add("top_p", defaults.top_p);
  add("top_k", defaults.top_k);
  add("min_p", defaults.min_p);
  add("repetition_penalty", defaults.repetition_penalty);
  add("max_new_tokens", defaults.max_new_tokens);
  return parts.empty() ? "none" : fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace hadal
