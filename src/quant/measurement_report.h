// What measurement files say, for people: ranges by kind of tensor, outliers with layer and expert, and what each scale
// method would make of them. Works from any single rank's file. Behind `hadal calibrate --inspect`.
// Facts: spec/gaudi-pipeline.md 3.4, 3.5, 4.2, 4.4.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "formats/inc_measurement.h"
#include "quant/scale_rule.h"

namespace hadal {

struct MeasurementSource {
  std::optional<int64_t> rank, world_size;  // from the file's name, else LocalRank alone
  IncMeasurement measurement;
};

// An INC file (.json or .npz) of one rank, or a RangeSet file, which is shown as the one rank of world size 1.
Expected<MeasurementSource> open_measurement_source(const std::filesystem::path& path);

// One kind of tensor: the same input, output or weight of all layers, ranks and experts.
struct MeasuredKind {
  std::string name;  // "self_attn.q_a_proj inputs[0]"
  int64_t count = 0;
  float min = 0, median = 0, max = 0;  // median as NumPy: the mean of the middle two
};

// What a scale makes of a tensor of known largest magnitude.
struct ScaleEffect {
  std::string method;
  float scale = 0;
  float saturates_above = 0;  // larger values become this
  float coarse_below = 0;     // smaller values keep fewer than three mantissa bits
  float zero_below = 0;       // values up to this become 0
  bool saturates = false;     // the tensor has values above saturates_above
};

struct MeasuredOutlier {
  std::string module, field;  // "model.layers.60.mlp.experts.moe_op", "outputs[2]"
  std::optional<int64_t> rank;
  int64_t layer = 0;
  std::optional<int64_t> local_expert, global_expert;  // global: where the rank is known
  float value = 0;
  bool is_unused = false;  // the MoE op's combined output, which no kernel quantises
  std::vector<ScaleEffect> effects;
};

struct MethodSummary {
  std::string method;
  int64_t num_saturated = 0;  // tensors (inputs, outputs) with values beyond their scale's range
};

struct MeasurementReport {
  FpRange device = FpRange::kGaudi2;
  std::vector<std::string> sources;  // "rank 5 of 16: 2707 modules"
  int64_t num_values = 0;
  int64_t num_zeros = 0;                  // the dummy inputs of experts' matrices are not counted among them
  std::vector<std::string> zero_experts;  // "layer 4, expert 17": no token came by
  std::vector<MeasuredKind> kinds;        // in traversal order
  float outlier_limit = 0;                // largest value a hardware-aligned scale can hold: 3840 on Gaudi 2
  std::vector<MeasuredOutlier> outliers;  // inputs and outputs above it, largest first
  std::vector<MethodSummary> methods;
  std::vector<std::string> checks;         // relations between modules, and how often they hold
  std::vector<std::string> other_modules;  // names this program gives no meaning
};

MeasurementReport make_measurement_report(std::span<const MeasurementSource> sources, FpRange device);

// Shortest decimal digits that read back as the same float, never with an exponent: "140288", "0.0000098".
std::string plain_decimal(float value);

std::string measurement_report_text(const MeasurementReport& report);
Json measurement_report_json(const MeasurementReport& report);

}  // namespace hadal
