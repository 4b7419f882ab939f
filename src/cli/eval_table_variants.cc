#include "cli/eval_table_variants.h"

#include "base/json.h"
#include "base/names.h"

namespace hadal {
namespace {

constexpr JsonLimits kLimits = {.max_bytes = size_t{1} << 20, .max_depth = 8, .refuse_duplicate_keys = true};

tl::unexpected<Error> must_be(const std::string& name, const char* what) {
  return make_error(ErrorCode::kCorrupt, "\"{}\" must be {}", name, what);
}

Status read_environment(const Json& value, TableVariant& variant) {
  if (!value.is_object()) return must_be("environment", "an object");
  for (const auto& [name, text] : value.items()) {
    if (!name.starts_with("INC_") || !text.is_string()) return must_be(name, "an INC_* variable with a string");
    variant.environment.emplace_back(name, text.get<std::string>());
  }
  return {};
}

Status read_member(const std::string& name, const Json& value, TableVariant& variant) {
  ServeOptions& options = variant.options;
  const std::pair<const char*, std::string*> strings[] = {{"name", &variant.name},
                                                          {"kv", &variant.kv_cache},
                                                          {"numerics", &options.numerics},
                                                          {"quantization", &options.quantization},
                                                          {"quant_config", &options.quant_config},
                                                          {"gaudi_mode", &options.gaudi_mode},
                                                          {"range_map", &options.range_map},
                                                          {"kv_cache_dtype", &options.kv_cache_dtype}};
  std::vector<std::string> names = {"environment", "problems"};
  for (const auto& [known, target] : strings) {
    names.push_back(known);
    if (name != known) continue;
    if (!value.is_string()) return must_be(name, "a string");
    *target = value.get<std::string>();
    return {};
  }
  if (name == "environment") return read_environment(value, variant);
  if (name == "problems") {
    if (!value.is_boolean()) return must_be(name, "true or false");
    variant.problems = value.get<bool>();
    return {};
  }
  const std::string near = closest_name(name, names);
  return make_error(ErrorCode::kCorrupt, "unknown member \"{}\"{}", name,
                    near.empty() ? "" : " (did you mean \"" + near + "\"?)");
}

Status read_variant(const Json& row, TableVariant& variant) {
  if (!row.is_object()) return make_error(ErrorCode::kCorrupt, "must be an object");
  for (const auto& [name, value] : row.items()) HADAL_RETURN_IF_ERROR(read_member(name, value, variant));
  return variant.name.empty() ? must_be("name", "given") : Status();
}

}  // namespace

Expected<std::vector<TableVariant>> parse_table_variants(std::string_view text, const std::filesystem::path& folder,
                                                         const ServeOptions& base) {
  HADAL_ASSIGN_OR_RETURN(const Json rows, parse_json(text, kLimits));
  if (!rows.is_array() || rows.empty()) return make_error(ErrorCode::kCorrupt, "must be a list of rows");
  std::vector<TableVariant> variants;
  for (const Json& row : rows) {
    TableVariant variant = {.kv_cache = "as activations", .options = base};
    Status read = read_variant(row, variant);
    if (!read) return forward_error(std::move(read), fmt::format("row {}", variants.size() + 1));
    std::string& config = variant.options.quant_config;
    if (!config.empty()) config = (folder / config).string();
    if (variant.options.quantization != "inc") variant.options.measurements.clear();
    variants.push_back(std::move(variant));
  }
  return variants;
}

}  // namespace hadal
