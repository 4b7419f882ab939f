// The file that QUANT_CONFIG names: how Intel Neural Compressor (branch r1-woq) measures or quantises a model. Says
// what is written, with INC's defaults for what is not; whether a setting is supported here is decided by
// quant/inc_plan.h. Facts: spec/gaudi-pipeline.md 4.1 and 4.2.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace hadal {

enum class IncMode : uint8_t { kQuantize, kMeasure, kShape, kLoad, kNone };
enum class IncFp8Type : uint8_t { kE4m3, kE5m2 };
enum class IncHpDtype : uint8_t { kBf16, kFp16, kFp32 };
enum class IncObserver : uint8_t { kMaxabs, kMaxabsPerChannel, kShape, kSave };
enum class IncScaleFormat : uint8_t { kScalar, kConst };
enum class IncMeasureExclude : uint8_t { kNone, kInput, kOutput, kParams, kAll };
enum class IncDevice : uint8_t { kGaudi2, kGaudi3 };

enum class IncScaleMethod : uint8_t {
  kMax,
  kUnitScale,
  kHwAlignedSingleScale,
  kMaxabsHw,
  kMaxabsPow2,
  kMaxabsArbitrary,
  kMaxabsHwOptWeight,
  kMaxabsPow2OptWeight,
  kActMaxabsHwWeightsPcsMaxabsPow2,
  kActMaxabsHwWeightsPcsOptPow2,
  kActMaxabsPow2WeightsPcsMaxabsPow2,
  kActMaxabsPow2WeightsPcsOptPow2,
  kSmoothquantWeightsOutputChannelMaxabsPow2,
  kWeaksmoothquantWeightsOutputChannelMaxabsPow2,
  kSmoothquantOpt,
};

// "ACT_MAXABS_HW_WEIGHTS_PCS_MAXABS_POW2"
const char* inc_scale_method_name(IncScaleMethod method);
const char* inc_mode_name(IncMode mode);

// Which modules a rule is for. A name is a regular expression searched in the full module name, a type is the Python
// class of a module.
struct IncModuleList {
  std::vector<std::string> names, types;
};

struct IncConfig {
  IncMode mode = IncMode::kQuantize;
  std::string dump_stats_path = "stats";
  IncFp8Type fp8_config = IncFp8Type::kE4m3;
  IncHpDtype hp_dtype = IncHpDtype::kBf16;
  IncModuleList allowlist;  // both lists empty: every module
  IncModuleList blocklist;
  IncObserver observer = IncObserver::kMaxabs;
  IncScaleMethod scale_method = IncScaleMethod::kMaxabsHw;
  std::optional<double> input_backoff, weight_backoff;  // "scale_params"
  IncScaleFormat scale_format = IncScaleFormat::kScalar;
  bool ignore_modules_wo_measures = false;
  bool seperate_measure_files = true;
  std::optional<IncDevice> device_for_scales;
  IncMeasureExclude measure_exclude = IncMeasureExclude::kOutput;
  bool recalc_scales = false;
  bool fake_quant = false;
  bool use_qdq = false;
  bool measure_on_hpu = true;

  std::vector<std::string> ignored_keys;  // met, without effect there too: "method", "quantize_weight"
};

// Errors: kCorrupt for JSON that is none; kInvalidArgument naming the key, what was found and the choices, or the
// nearest known key.
Expected<IncConfig> parse_inc_config(std::string_view text);
// Errors begin with the path. An empty path is refused with the name of the variable that should hold it.
Expected<IncConfig> load_inc_config(const std::filesystem::path& path);

}  // namespace hadal
