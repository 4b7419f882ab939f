// Loads the models of a comparison and compares them.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "cli/open_model.h"
#include "cli/serve_options.h"
#include "eval/divergence.h"

namespace hadal {

// `options`, but computing as `numerics` says, without INC and with the default cache.
ServeOptions with_numerics(const ServeOptions& options, const std::string& numerics);

DivergenceShape divergence_shape(const OpenedModel& opened);
// Keeps references to both.
ModelFactory model_factory(const ServeOptions& options, const OpenedModel& opened);
// What a recording may take beside that model's weights.
uint64_t recording_limit_bytes(const OpenedModel& beside);

// Adds the weights that the plan changes.
Expected<DivergenceReport> with_weight_errors(Expected<DivergenceReport> report, const ServeOptions& options,
                                              const OpenedModel& opened);

// Side by side where both models fit into memory, else with a recording of the reference. opened: of `options`. Errors:
// as open_model(), load_opened_model() and measure_divergence().
Expected<DivergenceReport> run_divergence(const ServeOptions& options, const OpenedModel& opened,
                                          const std::string& reference_numerics, std::vector<TokenWindow> windows);

}  // namespace hadal
