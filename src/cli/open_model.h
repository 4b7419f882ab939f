// Everything `hadal serve` decides before it reads a weight: kernels, limits, and whether it all fits.
#pragma once

#include <cstdint>
#include <memory>

#include "base/status.h"
#include "cli/choose_numerics.h"
#include "cli/memory_plan.h"
#include "cli/serve_options.h"
#include "cli/serving_folder.h"
#include "engine/engine.h"
#include "model/config.h"
#include "model/load_model.h"

namespace hadal {

struct ModelFacts;
struct SamplingDefaults;

struct OpenedModel {
  NumericsChoice numerics;
  ModelConfig config;
  ServingFolder folder;
  int64_t max_model_len = 0;  // tokens
  int num_threads = 0;
  MemoryRequest memory_request;
  MemoryPlan memory;
};

// Checks the whole folder and the memory. Errors: the first problem that `hadal inspect` would list, a flag that does
// not go with the model, or kResourceExhausted with the arithmetic.
Expected<OpenedModel> open_model(const ServeOptions& options);

// The same of a rank other than 0, or of a model that is only timed: without text, which stays empty, and without the
// memory, which rank 0 divides. Errors: as open_model().
Expected<OpenedModel> open_model_part(const ServeOptions& options);

// Limits and kernels of an engine over the opened model. Requires a tokenizer.
EngineOptions engine_options(const ServeOptions& options, const OpenedModel& opened);

// What a server over the opened model says about it; without a certificate.
ModelFacts model_facts(const ServeOptions& options, const OpenedModel& opened, const SamplingDefaults& defaults);

// Loads the weights. Workers are bound to one core each. ranges: as LoadOptions.
Expected<std::unique_ptr<ForwardModel>> load_opened_model(const ServeOptions& options, const OpenedModel& opened,
                                                          LoadProgress progress = {}, ForwardObserver observer = {},
                                                          RangeObserver* ranges = nullptr);

}  // namespace hadal
