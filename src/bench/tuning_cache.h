// Which kernel settings were found best on this machine: a small JSON file in the user's cache folder, written by
// `hadal bench tune`, read by everything that loads a model. Losing it costs speed, never answers.
#pragma once

#include <filesystem>
#include <optional>

#include "base/json.h"
#include "base/status.h"
#include "kernels/kernels.h"
#include "kernels/tuning.h"

namespace hadal {

struct MachineTuning {
  KernelTuning kernels;
  int num_threads = 0;  // 0: one per physical core
};

// $XDG_CACHE_HOME/hadal/tuning.json, or ~/.cache/hadal/tuning.json. Nothing when neither variable is an absolute path.
std::optional<std::filesystem::path> tuning_cache_path();

// The entry for this processor model, number of cores and kernels in the file; defaults when there is none. A file that
// cannot be read as such is worth a warning and nothing more.
MachineTuning load_tuning(const std::filesystem::path& path, const KernelTable& kernels);

// Adds or replaces the entry, atomically; other machines' entries stay, a broken file is replaced. Errors: kIo.
Status save_tuning(const std::filesystem::path& path, const KernelTable& kernels, const MachineTuning& tuning);

// Loads the entry from tuning_cache_path() and sets the kernels up with it. Returns the number of threads to use:
// `wanted_threads` if above 0, else the entry's, else one per core. Call before a model runs.
int apply_tuning(const KernelTable& kernels, int wanted_threads);

// The settings in force: {"max_group_tokens", "prefetch_bytes"}.
Json tuning_json();

}  // namespace hadal
