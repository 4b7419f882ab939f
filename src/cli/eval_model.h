// What the commands that measure accuracy share: flags of the model, and an engine over it in this process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "cli/open_model.h"
#include "cli/serve_options.h"
#include "eval/engine_answers.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace hadal {

// --model and the flags that decide its numbers and memory.
void add_eval_model_options(CLI::App& command, ServeOptions& options);
// Where a command can also ask a server: all of these but --model are refused beside `base_url`, which they say nothing
// about.
void exclude_numerics_options(CLI::App& command, CLI::Option* base_url);

// {path, hash, numerics, numerics_hash, kernels}: what a model's numbers depend on.
Json model_identity_json(const ServeOptions& options, const OpenedModel& opened, const std::string& hash);

// load_opened_model() with a progress bar.
Expected<std::unique_ptr<ForwardModel>> load_with_progress(const ServeOptions& options, const OpenedModel& opened,
                                                           ForwardObserver observer = {});

// open_model() for a model that runs without an engine: windows of at most `context` tokens, one at a
// time, are all that its cache must hold.
Expected<OpenedModel> open_for_windows(const ServeOptions& options, int64_t context);

// Loads the model, with a progress bar, and starts an engine for `num_concurrent` requests at a time.
Expected<EvalModel> open_eval_model(const ServeOptions& options, int64_t num_concurrent);

}  // namespace hadal
