#include "quant/scale_method.h"

#include <string_view>

namespace hadal {
namespace {

constexpr float kInputBackoff = 0.25f, kWeightBackoff = 0.5f;

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

ScaleRounding rounding_of(std::string_view method) {
  if (contains(method, "HW")) return ScaleRounding::kHwAligned;
  return contains(method, "POW") ? ScaleRounding::kPow2 : ScaleRounding::kNone;
}

Status check_supported(IncScaleMethod method) {
  const std::string_view name = inc_scale_method_name(method);
  if (method == IncScaleMethod::kMax) {
    return make_error(ErrorCode::kUnsupported, "scale_method MAX: not implemented by INC either");
  }
  if (contains(name, "SMOOTHQUANT")) {
    return make_error(ErrorCode::kUnsupported, "scale_method {}: the SmoothQuant family is not supported", name);
  }
  if (contains(name, "OPT")) {
    return make_error(ErrorCode::kUnsupported,
                      "scale_method {}: methods that optimise weight scales (OPT) are not supported", name);
  }
  return {};
}

// The device whose full scale and exponents the scales are for.
Expected<FpRange> scale_range(const IncConfig& config, FpRange device) {
  if (!config.device_for_scales) return device;
  const FpRange asked = *config.device_for_scales == IncDevice::kGaudi2 ? FpRange::kGaudi2 : FpRange::kGaudi3;
  if (asked == device) return device;
  if (device == FpRange::kGaudi3 && config.scale_method == IncScaleMethod::kMaxabsHw) return FpRange::kGaudi2;
  return make_error(ErrorCode::kUnsupported,
                    "device_for_scales {} on a {} with scale_method {}: only GAUDI2 scales on a Gaudi 3 with MAXABS_HW "
                    "exist",
                    asked == FpRange::kGaudi2 ? "GAUDI2" : "GAUDI3", device == FpRange::kGaudi2 ? "Gaudi 2" : "Gaudi 3",
                    inc_scale_method_name(config.scale_method));
}

std::optional<StaticScale> fixed_scale(IncScaleMethod method, FpRange range) {
  if (method == IncScaleMethod::kUnitScale) return StaticScale{};
  if (method != IncScaleMethod::kHwAlignedSingleScale) return std::nullopt;
  const float largest = range == FpRange::kGaudi2 ? 16 : 128;
  return StaticScale{.scale = largest, .inv = 1 / largest};
}

}  // namespace

Expected<IncScaleRules> inc_scale_rules(const IncConfig& config, FpRange device, const IncSwitches& switches) {
  HADAL_RETURN_IF_ERROR(check_supported(config.scale_method));
  const std::string_view method = inc_scale_method_name(config.scale_method);
  HADAL_ASSIGN_OR_RETURN(const FpRange range, scale_range(config, device));
  IncScaleRules rules;
  rules.fixed = fixed_scale(config.scale_method, range);
  rules.weight_per_row = contains(method, "PCS");
  const ScaleRule common = {.range = range,
                            .rounding = switches.force_naive_scaling ? ScaleRounding::kNone : rounding_of(method),
                            .bf16 = !switches.force_scale_fp32};
  rules.activation = rules.weight = common;
  if (!switches.force_naive_scaling) {
    rules.activation.backoff = static_cast<float>(config.input_backoff.value_or(kInputBackoff));
    rules.weight.backoff = static_cast<float>(config.weight_backoff.value_or(kWeightBackoff));
  } else if (rules.fixed) {
    rules.notes.push_back(fmt::format("INC_FORCE_NAIVE_SCALING has no effect on scale_method {}", method));
  } else {
    rules.notes.emplace_back("Enabled naive scaling");
    rules.notes.emplace_back("Enabled naive scaling, backoff is set to 1.0");
  }
  if (rules.weight_per_row && config.scale_format == IncScaleFormat::kScalar) {
    rules.notes.push_back(fmt::format("scale_format SCALAR is taken as CONST: {} has a weight scale per row", method));
  }
  return rules;
}

}  // namespace hadal
