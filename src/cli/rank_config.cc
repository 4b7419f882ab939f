#include "cli/rank_config.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "base/json.h"

namespace hadal {
namespace {

// Calls `field(name, member)` for all that ranks must agree on.
template <typename Options, typename Field>
void for_each_field(Options& options, Field&& field) {
  field("model", options.model);
  field("max_model_len", options.max_model_len);
  field("max_num_seqs", options.max_num_seqs);
  field("max_num_batched_tokens", options.max_num_batched_tokens);
  field("block_size", options.block_size);
  field("num_blocks", options.num_blocks);
  field("max_itl_ms", options.max_itl_ms);
  field("isa", options.isa);
  field("numerics", options.numerics);
  field("quantization", options.quantization);
  field("quant_config", options.quant_config);
  field("measurements", options.measurements);
  field("gaudi_mode", options.gaudi_mode);
  field("range_map", options.range_map);
  field("dtype", options.dtype);
  field("kv_cache_dtype", options.kv_cache_dtype);
  field("num_threads", options.num_threads);
  field("memory_utilization", options.memory_utilization);
  field("log_level", options.log_level);
  field("log_format", options.log_format);
  field("tensor_parallel_size", options.ranks.tensor_parallel_size);
  field("enable_expert_parallel", options.ranks.enable_expert_parallel);
  field("rank_timeout_ms", options.ranks.rank_timeout);
  field("calibrated_world_sizes", options.calibrated_world_sizes);
  field("numerics_environment", options.numerics_environment);
}

using Variables = std::optional<std::map<std::string, std::string>>;

Json to_json(const std::chrono::milliseconds& time) { return time.count(); }
Json to_json(const Variables& variables) { return *variables; }
template <typename T>
Json to_json(const T& value) {
  return value;
}

bool is_list_of_integers(const Json& json) {
  return json.is_array() &&
         std::all_of(json.begin(), json.end(), [](const Json& element) { return element.is_number_integer(); });
}

bool is_object_of_strings(const Json& json) {
  return json.is_object() &&
         std::all_of(json.begin(), json.end(), [](const Json& element) { return element.is_string(); });
}

void make_absolute(std::string& path) {
  if (!path.empty()) path = std::filesystem::absolute(path).lexically_normal().string();
}

template <typename T>
Status read_field(const Json& json, const char* name, T& value) {
  const auto found = json.find(name);
  if (found == json.end()) return make_error(ErrorCode::kCorrupt, "rank 0's configuration has no {}", name);
  if constexpr (std::is_same_v<T, std::chrono::milliseconds>) {
    int64_t count = 0;
    HADAL_RETURN_IF_ERROR(read_field(json, name, count));
    value = std::chrono::milliseconds(count);
    return {};
  } else {
    const bool fits = std::is_same_v<T, std::string>            ? found->is_string()
                      : std::is_same_v<T, bool>                 ? found->is_boolean()
                      : std::is_same_v<T, std::vector<int64_t>> ? is_list_of_integers(*found)
                      : std::is_same_v<T, Variables>            ? is_object_of_strings(*found)
                      : std::is_floating_point_v<T>             ? found->is_number()
                                                                : found->is_number_integer();
    if (!fits) {
      return make_error(ErrorCode::kCorrupt, "rank 0's configuration: {} is {}", name, std::string(found->type_name()));
    }
    if constexpr (std::is_same_v<T, Variables>) {
      value = found->template get<typename T::value_type>();
    } else {
      value = found->template get<T>();
    }
    return {};
  }
}

// Where INC's relative dump_stats_path begins is a folder of rank 0 too, set or not.
std::map<std::string, std::string> own_numerics_environment() {
  std::map<std::string, std::string> variables;
  for (const char* name : kNumericsVariables) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') variables[name] = value;
  }
  std::string& prefix = variables["INC_MEASUREMENT_DUMP_PATH_PREFIX"];
  if (prefix.empty()) prefix = ".";
  make_absolute(prefix);
  return variables;
}

}  // namespace

std::string write_rank_config(const ServeOptions& options, std::string_view isa) {
  ServeOptions resolved = options;
  resolved.isa = isa;
  const char* quant_config = std::getenv("QUANT_CONFIG");
  if (resolved.quant_config.empty() && quant_config != nullptr) resolved.quant_config = quant_config;
  make_absolute(resolved.model);
  make_absolute(resolved.quant_config);
  make_absolute(resolved.measurements);
  resolved.numerics_environment = own_numerics_environment();
  Json json = Json::object();
  for_each_field(resolved, [&](const char* name, const auto& value) { json[name] = to_json(value); });
  return dump_json(json);
}

Expected<ServeOptions> parse_rank_config(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(const Json json, parse_json(text));
  if (!json.is_object()) return make_error(ErrorCode::kCorrupt, "rank 0's configuration is no object");
  ServeOptions options;
  Status status;
  std::set<std::string> known;
  for_each_field(options, [&](const char* name, auto& value) {
    known.insert(name);
    if (status) status = read_field(json, name, value);
  });
  if (!status) return forward_error(std::move(status));
  for (const auto& [name, value] : json.items()) {
    if (!known.contains(name)) {
      return make_error(ErrorCode::kCorrupt,
                        "rank 0's configuration has {}, unknown here: do the ranks run the same "
                        "version?",
                        name.substr(0, 80));
    }
  }
  return options;
}

}  // namespace hadal
