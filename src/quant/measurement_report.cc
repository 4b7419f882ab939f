#include "quant/measurement_report.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/check.h"
#include "base/file.h"
#include "quant/inc_modules.h"
#include "quant/inc_ranges.h"
#include "quant/scale_method.h"

namespace hadal {
namespace {

constexpr size_t kMaxFileBytes = size_t{256} << 20;

struct Method {
  std::string name;
  IncScaleRules rules;
};

// The different activation scales there are; methods that differ in weights only are one row.
std::vector<Method> all_methods(FpRange device) {
  struct Row {
    const char* name;
    IncScaleMethod method;
    IncSwitches switches;
  };
  const Row rows[] = {
      {"MAXABS_HW, ACT_MAXABS_HW_*", IncScaleMethod::kMaxabsHw, {}},
      {"MAXABS_POW2, ACT_MAXABS_POW2_*", IncScaleMethod::kMaxabsPow2, {}},
      {"MAXABS_ARBITRARY", IncScaleMethod::kMaxabsArbitrary, {}},
      {"naive (INC_FORCE_NAIVE_SCALING)", IncScaleMethod::kMaxabsHw, {.force_naive_scaling = true}},
      {"naive, FP32 scales", IncScaleMethod::kMaxabsHw, {.force_naive_scaling = true, .force_scale_fp32 = true}},
      {"HW_ALIGNED_SINGLE_SCALE", IncScaleMethod::kHwAlignedSingleScale, {}},
      {"UNIT_SCALE", IncScaleMethod::kUnitScale, {}},
  };
  std::vector<Method> methods;
  for (const Row& row : rows) {
    IncConfig config;
    config.scale_method = row.method;
    auto rules = inc_scale_rules(config, device, row.switches);
    HADAL_CHECK(rules.has_value(), "{}", row.name);
    methods.push_back({row.name, std::move(*rules)});
  }
  return methods;
}

ScaleEffect effect_of(const Method& method, float amax, FpRange device) {
  const float scale =
      method.rules.fixed ? method.rules.fixed->scale : scale_from_amax(amax, method.rules.activation).scale;
  ScaleEffect effect{.method = method.name, .scale = scale};
  effect.saturates_above = full_scale(device) * scale;
  effect.coarse_below = 0x1p-6f * scale;
  effect.zero_below = 0x1p-10f * scale;  // half the smallest code, ties to even
  // The last step is an eighth of the last power of two; half a step above the last code still rounds to it.
  const float half_step = device == FpRange::kGaudi2 ? 8 : 16;
  effect.saturates = amax > (full_scale(device) + half_step) * scale;
  return effect;
}

std::string rank_text(const MeasurementSource& source) {
  if (!source.rank) return "one rank";
  if (!source.world_size) return fmt::format("rank {}", *source.rank);
  return fmt::format("rank {} of {}", *source.rank, *source.world_size);
}

float median_of(std::vector<float>& values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

class Reporter {
 public:
  explicit Reporter(FpRange device) : device_(device), methods_(all_methods(device)) {
    report_.device = device;
    report_.outlier_limit = full_scale(device) * (device == FpRange::kGaudi2 ? 16.0f : 128.0f);
    for (const Method& method : methods_) report_.methods.push_back({method.name, 0});
  }

  void add(const MeasurementSource& source) {
    source_ = &source;
    report_.sources.push_back(fmt::format("{}: {} modules", rank_text(source), source.measurement.nodes.size()));
    nodes_.clear();
    for (const IncNode& node : source.measurement.nodes) nodes_[node.name] = &node;
    for (const IncNode& node : source.measurement.nodes) add_node(node);
  }

  MeasurementReport finish() {
    for (auto& [key, values] : kinds_) {
      const auto [role, field] = key;
      MeasuredKind kind{.name = fmt::format("{} {}", inc_role_suffix(role), field_names_[field])};
      kind.count = static_cast<int64_t>(values.size());
      kind.median = median_of(values);
      kind.min = values.front();
      kind.max = values.back();
      report_.kinds.push_back(std::move(kind));
    }
    std::stable_sort(report_.outliers.begin(), report_.outliers.end(),
                     [](const MeasuredOutlier& a, const MeasuredOutlier& b) { return a.value > b.value; });
    const auto check = [this](const char* text, const Relation& relation) {
      if (relation.total > 0)
        report_.checks.push_back(fmt::format("{}: {} of {}", text, relation.holds, relation.total));
    };
    check("matmul_qk inputs[1] equals latent_cache_k inputs[0]", cache_is_key_);
    check("matmul_av inputs[1] equals kv_b_proj inputs[0]", value_is_latent_);
    check("o_proj inputs[0] is at least the prefill attention's outputs[0]", o_covers_prefill_);
    check("o_proj inputs[0] equals the prefill attention's outputs[0]", o_is_prefill_);
    return std::move(report_);
  }

 private:
  struct Relation {
    int64_t holds = 0, total = 0;
    void count(bool is_true) {
      holds += is_true;
      ++total;
    }
  };
  // Order of a kind's fields; experts' intermediates are one kind.
  enum Field : uint8_t { kInput0, kInput1, kInput2, kOutput0, kOutput1, kExperts, kWeight };
  static constexpr const char* field_names_[] = {
      "inputs[0]", "inputs[1]", "inputs[2]", "outputs[0]", "outputs[1]", "outputs[1..] (experts)", "weight"};

  void add_node(const IncNode& node) {
    const auto id = parse_inc_module_name(node.name);
    if (!id) {
      report_.other_modules.push_back(node.name);
      return;
    }
    const bool is_dummy = inc_role_kind(id->role) == IncModuleKind::kExpertLinear;
    for (size_t i = 0; i < node.inputs.size() && !is_dummy; ++i) {
      add_value(node, *id, fmt::format("inputs[{}]", i), static_cast<Field>(std::min<size_t>(i, 2)), node.inputs[i]);
    }
    const bool is_moe = id->role == IncRole::kMoeOp;
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const Field field = i == 0 ? kOutput0 : is_moe ? kExperts : kOutput1;
      add_value(node, *id, fmt::format("outputs[{}]", i), field, node.outputs[i]);
    }
    if (node.weight) {
      ++report_.num_values;
      kinds_[{id->role, kWeight}].push_back(*node.weight);
    }
    check_relations(node, *id);
  }

  void add_value(const IncNode& node, const IncModuleId& id, const std::string& name, Field field, float value) {
    ++report_.num_values;
    kinds_[{id.role, field}].push_back(value);
    const auto local = field == kExperts ? std::optional<int64_t>(std::stoll(name.substr(8)) - 1) : std::nullopt;
    if (value == 0) {
      ++report_.num_zeros;
      if (local) report_.zero_experts.push_back(expert_text(id.layer, *local, node));
      return;
    }
    const bool is_unused = id.role == IncRole::kMoeOp && field == kOutput0;
    if (!is_unused) {
      for (size_t m = 0; m < methods_.size(); ++m) {
        report_.methods[m].num_saturated += effect_of(methods_[m], value, device_).saturates;
      }
    }
    if (value <= report_.outlier_limit) return;
    MeasuredOutlier outlier{.module = node.name, .field = name, .rank = source_->rank, .layer = id.layer};
    outlier.local_expert = local;
    if (local) outlier.global_expert = global_expert(*local, node);
    outlier.value = value;
    outlier.is_unused = is_unused;
    for (const Method& method : methods_) outlier.effects.push_back(effect_of(method, value, device_));
    report_.outliers.push_back(std::move(outlier));
  }

  // Ranks own equal shares; only the last may have more, which its file alone cannot tell.
  std::optional<int64_t> global_expert(int64_t local, const IncNode& moe) const {
    if (!source_->rank || *source_->rank < 0) return std::nullopt;
    return *source_->rank * static_cast<int64_t>(moe.outputs.size() - 1) + local;
  }
  std::string expert_text(int64_t layer, int64_t local, const IncNode& moe) const {
    const auto global = global_expert(local, moe);
    return fmt::format("layer {}, local expert {}{}", layer, local, global ? fmt::format(" (expert {})", *global) : "");
  }

  // The only value of another module of the same layer, where it is there.
  std::optional<float> input_of(int64_t layer, IncRole role) const {
    const auto found = nodes_.find(inc_module_name(layer, role));
    if (found == nodes_.end() || found->second->inputs.empty()) return std::nullopt;
    return found->second->inputs[0];
  }
  void check_relations(const IncNode& node, const IncModuleId& id) {
    if (id.role == IncRole::kMatmulQk && node.inputs.size() > 1) {
      if (const auto cache = input_of(id.layer, IncRole::kLatentCache)) cache_is_key_.count(node.inputs[1] == *cache);
    } else if (id.role == IncRole::kMatmulAv && node.inputs.size() > 1) {
      if (const auto latent = input_of(id.layer, IncRole::kKvB)) value_is_latent_.count(node.inputs[1] == *latent);
    } else if (id.role == IncRole::kSdpa && !node.outputs.empty()) {
      const auto o = input_of(id.layer, IncRole::kO);
      if (!o) return;
      o_covers_prefill_.count(*o >= node.outputs[0]);
      o_is_prefill_.count(*o == node.outputs[0]);
    }
  }

  const FpRange device_;
  const std::vector<Method> methods_;
  const MeasurementSource* source_ = nullptr;
  std::unordered_map<std::string, const IncNode*> nodes_;  // of the source at hand
  std::map<std::pair<IncRole, Field>, std::vector<float>> kinds_;
  Relation cache_is_key_, value_is_latent_, o_covers_prefill_, o_is_prefill_;
  MeasurementReport report_;
};

// A RangeSet as the measurement of a single rank. The combined MoE output is the largest of any recorded world size.
Expected<MeasurementSource> source_from_ranges(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(RangeSet set, range_set_from_json(text));
  for (LayerRanges& layer : set.layers) {
    if (layer.expert_down_in.empty() || layer.moe_out.contains(1)) continue;
    float largest = 0;
    for (const auto& [world_size, values] : layer.moe_out) {
      for (const float value : values) raise_range(largest, value);
    }
    layer.moe_out[1] = {largest};
  }
  HADAL_ASSIGN_OR_RETURN(IncRankFile file, inc_rank_file(set, 0, 1));
  return MeasurementSource{.rank = 0, .world_size = 1, .measurement = std::move(file.measurement)};
}

}  // namespace

Expected<MeasurementSource> open_measurement_source(const std::filesystem::path& path) {
  HADAL_ASSIGN_OR_RETURN(const std::string bytes, read_file(path, kMaxFileBytes));
  const auto name = parse_inc_file_name(path);
  if (name && name->extension == "_mod_list.json") {
    return make_error(ErrorCode::kInvalidArgument, "{}: a list of modules, give the .json or .npz beside it",
                      path.string());
  }
  const bool is_range_set = std::string_view(bytes).substr(0, 64).find("\"hadal ranges\"") != std::string_view::npos;
  Expected<MeasurementSource> source;
  if (is_range_set) {
    source = source_from_ranges(bytes);
  } else if (auto measurement = parse_inc_measurement(bytes)) {
    source->rank = name ? std::optional(name->rank) : measurement->local_rank;
    if (name) source->world_size = name->world_size;
    source->measurement = std::move(*measurement);
  } else {
    source = forward_error(std::move(measurement));
  }
  if (!source) return forward_error(std::move(source), path.string());
  return source;
}

MeasurementReport make_measurement_report(std::span<const MeasurementSource> sources, FpRange device) {
  Reporter reporter(device);
  for (const MeasurementSource& source : sources) reporter.add(source);
  return reporter.finish();
}

}  // namespace hadal
