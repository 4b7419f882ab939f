// Numerics plans that need no measurements. Facts: design.md 3, spec/gaudi-pipeline.md 5.1.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"
#include "quant/numerics_plan.h"

namespace hadal {

struct ProfileOptions {
  NumericsProfile profile = NumericsProfile::kBf16;
  GaudiMode mode = GaudiMode::kNone;     // Gaudi profiles: kRuntimeDequant or kDynamic
  RangeMap range_map = RangeMap::kNone;  // what the stored codes need before a Gaudi 2 can read them
  bool ue8m0_scales = false;             // config.json: quantization_config.scale_fmt
  bool fp8_cache = false;                // Gaudi profiles: latent cache in FP8 with scale 1 (fp8_inc without INC)
  int64_t num_layers = 0;
};

// "bf16", "reference", "fp8-dynamic", "gaudi2", "gaudi3". Errors: kInvalidArgument, nearest name given.
Expected<NumericsProfile> parse_numerics_profile(std::string_view name);
const char* numerics_profile_name(NumericsProfile profile);
// "runtime-dequant", "dynamic", "static", "inc" (A to D).
Expected<GaudiMode> parse_gaudi_mode(std::string_view name);
const char* gaudi_mode_name(GaudiMode mode);

// What all Gaudi plans have in common, without layers.
NumericsPlan gaudi_plan_base(NumericsProfile profile, GaudiMode mode, RangeMap range_map);

// Requires a mode that fits the profile and needs no scales.
NumericsPlan make_profile_plan(const ProfileOptions& options);

}  // namespace hadal
