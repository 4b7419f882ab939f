#include "quant/inc_plan.h"

#include <algorithm>
#include <optional>

#include "quant/inc_modules.h"
#include "quant/module_filter.h"
#include "quant/profile_plan.h"

namespace hadal {
namespace {

Status check_setting(bool is_supported, const char* setting) {
  if (is_supported) return {};
  return make_error(ErrorCode::kUnsupported, "quant config: {} is not supported", setting);
}

Status check_config(const IncConfig& config) {
  if (config.mode != IncMode::kQuantize) {
    return make_error(ErrorCode::kInvalidArgument, "quant config: mode is {}, serving needs QUANTIZE",
                      inc_mode_name(config.mode));
  }
  HADAL_RETURN_IF_ERROR(check_setting(config.fp8_config == IncFp8Type::kE4m3, "fp8_config E5M2"));
  HADAL_RETURN_IF_ERROR(check_setting(config.hp_dtype == IncHpDtype::kBf16, "hp_dtype other than BF16"));
  HADAL_RETURN_IF_ERROR(check_setting(config.observer == IncObserver::kMaxabs, "observer other than maxabs"));
  HADAL_RETURN_IF_ERROR(check_setting(!config.fake_quant, "fake_quant"));
  return check_setting(!config.use_qdq, "use_qdq");
}

class PlanBuilder {
 public:
  PlanBuilder(const RangeSet& ranges, const IncConfig& config, const IncScaleRules& rules, const ModuleFilter& filter,
              IncPlanReport& report)
      : ranges_(ranges), config_(config), rules_(rules), filter_(filter), report_(report) {}

  Status fill(NumericsPlan& plan, bool fp8_cache) {
    fp8_cache_ = fp8_cache;
    plan.layers.assign(ranges_.layers.size(), {});
    HADAL_ASSIGN_OR_RETURN(const RankShare whole, rank_share(ranges_.dims, 0, 1));
    for (const IncModule& module : inc_modules(ranges_.dims, whole)) {
      if (inc_role_kind(module.id.role) == IncModuleKind::kUnmeasured) continue;
      HADAL_RETURN_IF_ERROR(add_module(module, plan.layers[static_cast<size_t>(module.id.layer)]));
    }
    return {};
  }

 private:
  Status add_module(const IncModule& module, LayerQuant& layer) {
    ++report_.num_modules;
    HADAL_ASSIGN_OR_RETURN(const bool is_selected, filter_.selects(module.name, inc_role_class(module.id.role)));
    if (!is_selected) ++report_.num_blocked;
    if (inc_role_kind(module.id.role) == IncModuleKind::kExpertLinear) return check_expert(module, layer, is_selected);
    if (module.id.role == IncRole::kLatentCache && is_selected != fp8_cache_) return cache_differs(module, is_selected);
    std::optional<IncModuleScales> scales;
    if (is_selected) {
      HADAL_ASSIGN_OR_RETURN(scales, scales_of(module));
      if (!scales) report_.without_measures.push_back(module.name);
    }
    if (scales) {
      ++report_.num_quantised;
      report_.scales.push_back(*scales);
    }
    place(module.id.role, scales, layer);
    return {};
  }

  // An expert's two matrices are quantised with the MoE op or not at all.
  Status check_expert(const IncModule& module, const LayerQuant& layer, bool is_selected) {
    const bool is_op_quantised = layer.experts.weight == WeightFormat::kRowF8;
    if (is_selected == is_op_quantised) {
      report_.num_quantised += is_selected;
      return {};
    }
    const std::string op = inc_module_name(module.id.layer, IncRole::kMoeOp);
    const bool op_lacks_measures = std::find(report_.without_measures.begin(), report_.without_measures.end(), op) !=
                                   report_.without_measures.end();
    if (op_lacks_measures) return {};
    return make_error(ErrorCode::kUnsupported, "quant config: {} is {} but {} is {}; both must be quantised or neither",
                      module.name, is_selected ? "quantised" : "blocked", op,
                      is_op_quantised ? "quantised" : "blocked");
  }

  // The cache's dtype is a flag's choice, within what the config allows.
  Status cache_differs(const IncModule& module, bool is_selected) {
    if (is_selected) {
      if (module.id.layer == 0) report_.notes.emplace_back("The KV cache stays BF16 (--kv-cache-dtype auto)");
      return {};
    }
    return make_error(ErrorCode::kInvalidArgument,
                      "--kv-cache-dtype fp8_inc, but the quant config does not quantise {}; use --kv-cache-dtype auto",
                      module.name);
  }

  // Scales of all inputs and outputs, or nothing when one is unmeasured and such modules are to be left alone.
  Expected<std::optional<IncModuleScales>> scales_of(const IncModule& module) {
    IncModuleScales out{.name = module.name, .inputs = {}, .outputs = {}};
    const LayerRanges& layer = ranges_.layers[static_cast<size_t>(module.id.layer)];
    const bool is_moe = module.id.role == IncRole::kMoeOp;
    for (const bool is_output : {false, true}) {
      for (const RangeSlot& slot : is_output ? module.outputs : module.inputs) {
        if (is_moe && is_output) break;
        const float amax = range_slot_value(layer, slot, 1);
        if (amax == kUnmeasured && rules_.needs_measurement() && config_.ignore_modules_wo_measures) {
          return std::optional<IncModuleScales>();
        }
        HADAL_ASSIGN_OR_RETURN(const StaticScale scale, scale_of(module.name, amax));
        (is_output ? out.outputs : out.inputs).push_back(scale);
      }
    }
    if (is_moe) {
      auto experts = expert_scales(module.id.layer, layer);
      if (!experts) return forward_error(std::move(experts), module.name);
      out.outputs = std::move(*experts);
    }
    return std::optional<IncModuleScales>(std::move(out));
  }

  Expected<StaticScale> scale_of(const std::string& module, float amax) const {
    if (rules_.fixed) return *rules_.fixed;
    if (amax == kUnmeasured) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{} is to be quantised but was not measured: calibrate again, block it, or set "
                        "ignore_modules_wo_measures",
                        module);
    }
    if (amax == 0) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: the largest magnitude measured is 0, which gives no scale: calibrate with more data",
                        module);
    }
    return scale_from_amax(amax, rules_.activation);
  }

  // Of the input of each expert's down_proj; the layer's median where calibration gave none.
  Expected<std::vector<StaticScale>> expert_scales(int64_t layer_index, const LayerRanges& layer) {
    if (rules_.fixed) return std::vector<StaticScale>(layer.expert_down_in.size(), *rules_.fixed);
    std::vector<StaticScale> measured;
    for (const float amax : layer.expert_down_in) {
      if (amax > 0) measured.push_back(scale_from_amax(amax, rules_.activation));
    }
    if (measured.empty()) {
      return make_error(ErrorCode::kInvalidArgument, "none of its {} experts was measured: calibrate again",
                        layer.expert_down_in.size());
    }
    const auto middle = measured.begin() + static_cast<std::ptrdiff_t>((measured.size() - 1) / 2);
    std::nth_element(measured.begin(), middle, measured.end(),
                     [](const StaticScale& a, const StaticScale& b) { return a.scale < b.scale; });
    const StaticScale median = *middle;
    std::vector<StaticScale> out;
    for (size_t e = 0; e < layer.expert_down_in.size(); ++e) {
      const float amax = layer.expert_down_in[e];
      out.push_back(amax > 0 ? scale_from_amax(amax, rules_.activation) : median);
      if (amax > 0) continue;
      report_.substitutes.push_back({layer_index, static_cast<int64_t>(e), amax == 0, median.scale});
    }
    return out;
  }

  static ModuleQuant linear(const std::optional<IncModuleScales>& scales) {
    if (!scales) return {.weight = WeightFormat::kBf16, .input = {}};
    return {.weight = WeightFormat::kRowF8, .input = {.kind = InputQuantKind::kStatic, .scale = scales->inputs[0]}};
  }
  static std::optional<std::array<StaticScale, 2>> matmul(const std::optional<IncModuleScales>& scales) {
    if (!scales) return std::nullopt;
    return std::array{scales->inputs[0], scales->inputs[1]};
  }

  static void place(IncRole role, const std::optional<IncModuleScales>& scales, LayerQuant& layer) {
    AttentionQuant& attention = layer.attention;
    switch (role) {
      case IncRole::kQA:
        layer.q_a = linear(scales);
        return;
      case IncRole::kKvA:
        layer.kv_a = linear(scales);
        return;
      case IncRole::kQB:
        layer.q_b = linear(scales);
        return;
      case IncRole::kKvB:
        attention.kv_b = linear(scales);
        return;
      case IncRole::kO:
        layer.o = linear(scales);
        return;
      case IncRole::kDenseGateUp:
      case IncRole::kSharedGateUp:
        layer.gate_up = linear(scales);
        return;
      case IncRole::kDenseDown:
      case IncRole::kSharedDown:
        layer.down = linear(scales);
        return;
      case IncRole::kMatmulQk:
        attention.matmul_qk = matmul(scales);
        return;
      case IncRole::kMatmulAv:
        attention.matmul_av = matmul(scales);
        return;
      case IncRole::kBatch2Block:
        attention.batch2block = matmul(scales);
        return;
      case IncRole::kBlock2Batch:
        attention.block2batch = matmul(scales);
        return;
      case IncRole::kLatentCache:
        if (scales) attention.latent_cache = scales->inputs[0];
        return;
      case IncRole::kSdpa:
        if (scales) {
          attention.sdpa = {scales->inputs[0], scales->inputs[1], scales->inputs[2], scales->outputs[1],
                            scales->outputs[0]};
        }
        return;
      case IncRole::kMoeOp:
        layer.experts = linear(scales);
        if (scales) {
          layer.expert_down = InputQuantKind::kStatic;
          layer.expert_down_scales = scales->outputs;
        }
        return;
      case IncRole::kSoftmax:
      case IncRole::kFusedMoe:
      case IncRole::kW13:
      case IncRole::kW2:
        return;
    }
  }

  const RangeSet& ranges_;
  const IncConfig& config_;
  const IncScaleRules& rules_;
  const ModuleFilter& filter_;
  IncPlanReport& report_;
  bool fp8_cache_ = false;
};

}  // namespace

Expected<NumericsPlan> make_inc_plan(const RangeSet& ranges, const IncConfig& config, const IncPlanOptions& options,
                                     IncPlanReport& report) {
  report = {};
  HADAL_RETURN_IF_ERROR(check_config(config));
  HADAL_RETURN_IF_ERROR(check_range_set(ranges));
  NumericsPlan plan = gaudi_plan_base(options.profile, GaudiMode::kInc, options.range_map);
  HADAL_ASSIGN_OR_RETURN(const IncScaleRules rules, inc_scale_rules(config, plan.range, options.switches));
  HADAL_ASSIGN_OR_RETURN(const ModuleFilter filter, ModuleFilter::compile(config.allowlist, config.blocklist));
  plan.weight_rule = rules.weight;
  plan.weight_scale_per_tensor = !rules.weight_per_row;
  plan.fixed_weight_scale = rules.fixed;
  report.notes = rules.notes;
  HADAL_RETURN_IF_ERROR(PlanBuilder(ranges, config, rules, filter, report).fill(plan, options.fp8_cache));
  return plan;
}

std::vector<std::string> describe_substitutes(const IncPlanReport& report, size_t max_lines) {
  std::vector<std::string> lines;
  for (const auto& substitute : report.substitutes) {
    if (lines.size() == max_lines) break;
    lines.push_back(fmt::format("expert {} of layer {}: {}, scale {} (median of its layer)", substitute.expert,
                                substitute.layer, substitute.was_zero ? "no token came by" : "not measured",
                                substitute.scale));
  }
  if (report.substitutes.size() > max_lines) {
    lines.push_back(fmt::format("and {} more experts", report.substitutes.size() - max_lines));
  }
  return lines;
}

}  // namespace hadal
