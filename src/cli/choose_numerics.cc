#include "cli/choose_numerics.h"

#include <utility>

#include "cli/inc_numerics.h"
#include "cli/range_probe.h"
#include "model/static_plan.h"
#include "quant/inc_settings.h"
#include "quant/profile_plan.h"

namespace hadal {
namespace {

bool is_gaudi(NumericsProfile profile) {
  return profile == NumericsProfile::kGaudi2 || profile == NumericsProfile::kGaudi3;
}

bool wants_inc(const ServeOptions& options) { return options.quantization == "inc"; }

// --numerics, or what --quantization implies.
Expected<NumericsProfile> choose_profile(const ServeOptions& options) {
  if (options.numerics.empty()) return wants_inc(options) ? NumericsProfile::kGaudi2 : NumericsProfile::kBf16;
  HADAL_ASSIGN_OR_RETURN(const NumericsProfile profile, parse_numerics_profile(options.numerics));
  if (wants_inc(options) && !is_gaudi(profile)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--quantization inc runs the numerics of a Gaudi; --numerics {} does not go with it (gaudi2 or "
                      "gaudi3 do)",
                      options.numerics);
  }
  return profile;
}

// Flags that would be read by nobody.
Status check_inc_flags(const ServeOptions& options) {
  if (wants_inc(options)) return {};
  for (const auto& [flag, value] :
       {std::pair("--measurements", &options.measurements), std::pair("--quant-config", &options.quant_config)}) {
    if (!value->empty()) {
      return make_error(ErrorCode::kInvalidArgument, "{} {} goes with --quantization inc", flag, *value);
    }
  }
  return {};
}

Expected<GaudiMode> choose_mode(const ServeOptions& options, const ModelConfig& config, NumericsProfile profile) {
  if (!is_gaudi(profile)) {
    if (options.gaudi_mode == "auto") return GaudiMode::kNone;
    return make_error(ErrorCode::kInvalidArgument, "--gaudi-mode {} goes with --numerics gaudi2 or gaudi3",
                      options.gaudi_mode);
  }
  HADAL_ASSIGN_OR_RETURN(const bool runtime_dequant,
                         read_inc_switch([&](const char* name) { return options.numerics_variable(name); },
                                         "VLLM_ENABLE_RUNTIME_DEQUANT"));
  GaudiMode mode = GaudiMode::kDynamic;
  if (options.gaudi_mode != "auto") {
    HADAL_ASSIGN_OR_RETURN(mode, parse_gaudi_mode(options.gaudi_mode));
  } else if (wants_inc(options)) {
    mode = GaudiMode::kInc;
  } else if (config.static_input_scales) {
    mode = GaudiMode::kStatic;
  } else if (runtime_dequant) {
    mode = GaudiMode::kRuntimeDequant;
  }
  if ((mode == GaudiMode::kInc) != wants_inc(options)) {
    return make_error(ErrorCode::kInvalidArgument, "--gaudi-mode {} and --quantization {} contradict each other",
                      gaudi_mode_name(mode), options.quantization.empty() ? "(none)" : options.quantization);
  }
  if (mode == GaudiMode::kNone) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--gaudi-mode none: give runtime-dequant, dynamic, static, inc or auto");
  }
  return mode;
}

const char* describe(const NumericsPlan& plan) {
  switch (plan.mode) {
    case GaudiMode::kNone:
      break;
    case GaudiMode::kRuntimeDequant:
      return "weights dequantised to BF16, activations BF16";
    case GaudiMode::kDynamic:
      return "weights FP8 per row, activations FP8 per token";
    case GaudiMode::kStatic:
      return "weights FP8 per row, activations FP8 with the checkpoint's static scales";
    case GaudiMode::kInc:
      return "weights and activations FP8 by INC measurements";
  }
  switch (plan.profile) {
    case NumericsProfile::kReference:
      return "weights and activations FP32";
    case NumericsProfile::kFp8Dynamic:
      return "weights FP8 block codes as stored, activations FP8 per token and 128 columns";
    default:
      return "weights as stored, activations BF16";
  }
}

// What the stored codes need before a Gaudi 2 can read them. Says in `warnings` what is odd about the folder.
Expected<RangeMap> choose_range_map(const ServeOptions& options, const ModelConfig& config, NumericsProfile profile,
                                    std::vector<std::string>& warnings) {
  const bool needs_map = profile == NumericsProfile::kGaudi2 && config.fp8_weights && !config.fp8_row_scales;
  if (options.range_map != "auto" && profile != NumericsProfile::kGaudi2) {
    return make_error(ErrorCode::kInvalidArgument, "--range-map {} goes with --numerics gaudi2", options.range_map);
  }
  if (!config.fp8_weights) return RangeMap::kNone;
  HADAL_ASSIGN_OR_RETURN(const RangeProbe probe, probe_range(options.model));
  if (config.fp8_row_scales) {
    if (profile == NumericsProfile::kGaudi2 && probe.evidence.max_magnitude() > 0x77) {
      return make_error(ErrorCode::kInvalidArgument,
                        "--numerics gaudi2: the rows of {} are scaled for 448 (code 0x{:02x}), a Gaudi 2 ends at 240; "
                        "give gaudi3, or convert the official folder with --method channel --target gaudi2",
                        options.model, probe.evidence.max_magnitude());
    }
    return RangeMap::kNone;
  }
  const bool converted = probe.applied && *probe.applied != RangeMap::kNone;
  if (converted) {
    warnings.push_back(fmt::format(
        "{}: the weights were converted for Gaudi 2 by the {} rule ({}){}", options.model,
        range_map_name(*probe.applied), probe.evidence.describe(),
        *probe.applied == RangeMap::kSeed
            ? ": they carry its rounding, 2.5 % of each value and 1.8 % of gain, and a damaged eh_proj where the model "
              "has an MTP layer. The official folder is better and needs no conversion here"
            : ""));
  }
  const bool forced_map = options.range_map == "exact" || options.range_map == "seed";
  if (converted && forced_map) {
    return make_error(ErrorCode::kInvalidArgument, "--range-map {}: {} was converted already ({}); give none or auto",
                      options.range_map, options.model, probe.evidence.describe());
  }
  if (options.range_map == "none" && probe.evidence.max_magnitude() > 0x77) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "--range-map none: {} holds codes up to 0x{:02x}, beyond Gaudi 2's 0x77 (240); give exact or seed",
        options.model, probe.evidence.max_magnitude());
  }
  if (!needs_map || converted || options.range_map == "none") return RangeMap::kNone;
  return options.range_map == "seed" ? RangeMap::kSeed : RangeMap::kExact;
}

Status take_inc_plan(const ServeOptions& options, const ModelConfig& config, NumericsProfile profile,
                     RangeMap range_map, bool gaudi_cache, NumericsChoice& choice) {
  HADAL_ASSIGN_OR_RETURN(
      IncNumerics inc,
      open_inc_numerics(options, config, {.profile = profile, .range_map = range_map, .fp8_cache = gaudi_cache}));
  choice.plan = std::move(inc.plan);
  choice.key += "-" + inc.method_key;
  choice.summary = std::move(inc.summary);
  choice.warnings.insert(choice.warnings.end(), inc.warnings.begin(), inc.warnings.end());
  return {};
}

Status take_profile_plan(const ServeOptions& options, const ModelConfig& config, NumericsProfile profile,
                         GaudiMode mode, RangeMap range_map, bool gaudi_cache, NumericsChoice& choice) {
  if (mode != GaudiMode::kStatic) {
    choice.plan = make_profile_plan({.profile = profile,
                                     .mode = mode,
                                     .range_map = range_map,
                                     .ue8m0_scales = config.ue8m0_scales,
                                     .fp8_cache = gaudi_cache,
                                     .num_layers = config.num_hidden_layers});
  } else if (!config.static_input_scales) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--gaudi-mode static: {} has no static input scales (activation_scheme \"static\" in its "
                      "quantization_config; hadal convert --method channel --input-scales makes such a folder)",
                      options.model);
  } else {
    HADAL_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::open(options.model));
    HADAL_ASSIGN_OR_RETURN(choice.plan, make_static_plan(profile, config, checkpoint));
    if (gaudi_cache) {
      for (LayerQuant& layer : choice.plan.layers) layer.attention.latent_cache = StaticScale{};
    }
  }
  choice.summary = describe(choice.plan);
  return {};
}

}  // namespace

Expected<const KernelTable*> choose_kernels(const ServeOptions& options) {
  if (options.numerics != "reference") return select_kernels(options.isa);
  if (options.isa != "auto" && options.isa != isa_name(Isa::kReference)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--numerics reference runs the reference kernels; --isa {} does not go "
                      "with it",
                      options.isa);
  }
  return &kernels_for(Isa::kReference);
}

Expected<NumericsChoice> choose_numerics(const ServeOptions& options, const ModelConfig& config) {
  NumericsChoice choice;
  HADAL_RETURN_IF_ERROR(check_inc_flags(options));
  HADAL_ASSIGN_OR_RETURN(choice.kernels, choose_kernels(options));
  HADAL_ASSIGN_OR_RETURN(const NumericsProfile profile, choose_profile(options));
  HADAL_ASSIGN_OR_RETURN(const GaudiMode mode, choose_mode(options, config, profile));
  const bool names_inc = options.kv_cache_dtype == "fp8_inc";
  const bool gaudi_cache = is_gaudi(profile) && (names_inc || options.kv_cache_dtype == "fp8");
  if (gaudi_cache) {
    choice.kv_dtype = DType::kF8E4M3;
  } else {  // the fork's scripts name INC's cache where nothing was measured, too, and get scale 1
    HADAL_ASSIGN_OR_RETURN(choice.kv_dtype,
                           select_kv_dtype(names_inc ? "fp8" : options.kv_cache_dtype, *choice.kernels));
  }
  if (names_inc && !wants_inc(options)) {
    choice.warnings.push_back(
        "--kv-cache-dtype fp8_inc without INC's measurements: the cache's scale is 1, as with fp8");
  }
  HADAL_ASSIGN_OR_RETURN(const RangeMap range_map, choose_range_map(options, config, profile, choice.warnings));
  choice.key = numerics_profile_name(profile);
  if (is_gaudi(profile)) choice.key += fmt::format("-{}", gaudi_mode_name(mode));
  if (mode == GaudiMode::kInc) {
    HADAL_RETURN_IF_ERROR(take_inc_plan(options, config, profile, range_map, gaudi_cache, choice));
  } else {
    HADAL_RETURN_IF_ERROR(take_profile_plan(options, config, profile, mode, range_map, gaudi_cache, choice));
  }
  if (options.quantization == "fp8" && !config.fp8_weights) {
    choice.warnings.push_back("--quantization fp8: the weights of this folder are BF16 and stay so");
  }
  if (range_map == RangeMap::kSeed) choice.key += "-seed";
  if (choice.kv_dtype == DType::kF8E4M3) choice.key += "-kv_fp8";
  return choice;
}

}  // namespace hadal
