// A model on several ranks in one process: a thread for each, all given the same calls.
#pragma once

#include <filesystem>
#include <memory>

#include "model/load_model.h"

namespace hadal {

// options.slice: of the group; its rank is ignored. Fails the test by exception.
std::unique_ptr<ForwardModel> load_thread_ranks(const std::filesystem::path& dir, const LoadOptions& options);

}  // namespace hadal
