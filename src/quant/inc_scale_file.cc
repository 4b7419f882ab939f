#include "quant/inc_scale_file.h"

#include <xxhash.h>

#include "base/file.h"
#include "base/json.h"
#include "formats/python_json.h"

namespace hadal {
namespace fs = std::filesystem;
namespace {

Json scale_json(float scale) { return Json::array({Json::array({static_cast<double>(scale)})}); }

Json scales_json(const std::vector<StaticScale>& scales) {
  Json out = Json::array();
  for (const StaticScale& scale : scales) out.push_back(scale_json(scale.scale));
  return out;
}

Json weight_json(const std::vector<float>& scales) {
  if (scales.size() == 1) return scale_json(scales[0]);
  Json rows = Json::array();
  for (const float scale : scales) rows.push_back(static_cast<double>(scale));
  return {{"0", std::move(rows)}, {"1", Json::array({1.0})}};
}

const char* device_name(const IncPlanOptions& options) {
  return options.profile == NumericsProfile::kGaudi2 ? "gaudi2" : "gaudi3";
}

Json list_json(const IncModuleList& list) { return {{"names", list.names}, {"types", list.types}}; }

Json settings_json(const IncConfig& config, const IncPlanOptions& options) {
  const auto number = [](const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); };
  return {{"scale_method", inc_scale_method_name(config.scale_method)},
          {"input_backoff", number(config.input_backoff)},
          {"weight_backoff", number(config.weight_backoff)},
          {"device", device_name(options)},
          {"device_for_scales", config.device_for_scales ? Json(static_cast<int>(*config.device_for_scales)) : Json()},
          {"allowlist", list_json(config.allowlist)},
          {"blocklist", list_json(config.blocklist)},
          {"ignore_modules_wo_measures", config.ignore_modules_wo_measures},
          {"force_naive_scaling", options.switches.force_naive_scaling},
          {"force_scale_fp32", options.switches.force_scale_fp32},
          {"fp8_cache", options.fp8_cache}};
}

}  // namespace

fs::path inc_scale_file_path(const fs::path& base, const IncConfig& config, const IncPlanOptions& options) {
  fs::path path = base;
  path += fmt::format("_hooks_maxabs_{}_{}_{}_{}_0_1.json", inc_scale_method_name(config.scale_method),
                      options.switches.force_naive_scaling ? "naive" : "rounded",
                      options.switches.force_scale_fp32 ? "fp32" : "bf16", device_name(options));
  return path;
}

uint64_t inc_scale_inputs_hash(const RangeSet& ranges, const IncConfig& config, const IncPlanOptions& options) {
  const std::string inputs = range_set_to_json(ranges) + dump_json(settings_json(config, options));
  return XXH3_64bits(inputs.data(), inputs.size());
}

std::string inc_scale_file_json(const IncPlanReport& report, const IncWeightScales& weights, uint64_t inputs_hash) {
  Json nodes = Json::object();
  auto& members = nodes.get_ref<Json::object_t&>();
  for (const IncModuleScales& module : report.scales) {
    Json node = {{"inputs", scales_json(module.inputs)}};
    if (!module.outputs.empty()) node["outputs"] = scales_json(module.outputs);
    const auto weight = weights.find(module.name);
    if (weight != weights.end()) node["params"] = {{"weight", weight_json(weight->second)}};
    // Names are distinct, so skip ordered_map's linear search.
    members.Json::object_t::Container::emplace_back(module.name, std::move(node));
  }
  return python_json({{"GlobalRank", nullptr},
                      {"LocalRank", 0},
                      {"Mode", "Scale"},
                      {"InputsHash", fmt::format("{:016x}", inputs_hash)},
                      {"Nodes", std::move(nodes)}});
}

Status write_inc_scale_file(const fs::path& path, const IncPlanReport& report, const IncWeightScales& weights,
                            uint64_t inputs_hash) {
  return write_file_atomically(path, inc_scale_file_json(report, weights, inputs_hash));
}

}  // namespace hadal
