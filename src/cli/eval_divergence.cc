#include "cli/eval_divergence.h"

#include <algorithm>
#include <utility>

#include "base/progress.h"
#include "base/resource_limits.h"
#include "cli/eval_model.h"
#include "model/weight_errors.h"

namespace hadal {

ServeOptions with_numerics(const ServeOptions& options, const std::string& numerics) {
  ServeOptions other = options;
  other.numerics = numerics;
  other.quantization.clear();
  other.quant_config.clear();
  other.measurements.clear();
  other.gaudi_mode = other.range_map = other.kv_cache_dtype = "auto";
  if (numerics == "reference") other.isa = "auto";
  return other;
}

DivergenceShape divergence_shape(const OpenedModel& opened) {
  return {.num_layers = opened.config.num_hidden_layers,
          .hidden_size = opened.config.hidden_size,
          .vocab_size = opened.config.vocab_size};
}

ModelFactory model_factory(const ServeOptions& options, const OpenedModel& opened) {
  return [&](ForwardObserver observer) { return load_with_progress(options, opened, std::move(observer)); };
}

uint64_t recording_limit_bytes(const OpenedModel& beside) {
  // Left for caches, workspaces and the values of one step.
  constexpr double kShare = 0.8;
  const double free_bytes = static_cast<double>(available_memory_bytes().value_or(UINT64_MAX));
  return static_cast<uint64_t>(
      std::max(0.0, kShare * (free_bytes - static_cast<double>(beside.memory_request.weight_bytes))));
}

Expected<DivergenceReport> with_weight_errors(Expected<DivergenceReport> report, const ServeOptions& options,
                                              const OpenedModel& opened) {
  if (!report) return report;
  ProgressBar bar("weights", "layer");
  HADAL_ASSIGN_OR_RETURN(report->weights,
                         measure_weight_errors(options.model, {.numerics = opened.numerics.plan,
                                                               .act_dtype = opened.numerics.kernels->act_dtype,
                                                               .num_threads = opened.num_threads,
                                                               .progress = [&](uint64_t done, uint64_t total) {
                                                                 bar.update(done, total);
                                                               }}));
  return report;
}

Expected<DivergenceReport> run_divergence(const ServeOptions& options, const OpenedModel& opened,
                                          const std::string& reference_numerics, std::vector<TokenWindow> windows) {
  constexpr double kWeightShare = 0.8;
  const ServeOptions reference_options = with_numerics(options, reference_numerics);
  HADAL_ASSIGN_OR_RETURN(const OpenedModel reference, open_for_windows(reference_options, opened.max_model_len));
  const DivergenceShape shape = divergence_shape(opened);
  const double weight_bytes = static_cast<double>(opened.memory_request.weight_bytes) +
                              static_cast<double>(reference.memory_request.weight_bytes);
  if (weight_bytes <= kWeightShare * static_cast<double>(available_memory_bytes().value_or(UINT64_MAX))) {
    return with_weight_errors(
        measure_divergence(model_factory(reference_options, reference), model_factory(options, opened), shape, windows),
        options, opened);
  }
  const OpenedModel& larger =
      opened.memory_request.weight_bytes > reference.memory_request.weight_bytes ? opened : reference;
  HADAL_ASSIGN_OR_RETURN(const ReferenceRecording recording,
                         record_reference(model_factory(reference_options, reference), shape, std::move(windows),
                                          recording_limit_bytes(larger)));
  return with_weight_errors(measure_divergence(recording, model_factory(options, opened)), options, opened);
}

}  // namespace hadal
