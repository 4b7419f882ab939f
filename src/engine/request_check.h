// What the engine refuses before it queues a request, and what options it refuses to start with.
#pragma once

#include "base/status.h"
#include "engine/engine.h"

namespace hadal {

// Tokens one sequence may have at most: the model length or all blocks together, whichever is less.
int64_t sequence_length_limit(const EngineOptions& options);

// Errors: kInvalidArgument naming the parameter, its value and the legal range.
Status check_request(const Request& request, const EngineOptions& options, int64_t vocab_size);
Status check_options(const EngineOptions& options, const ForwardModel& model);

}  // namespace hadal
