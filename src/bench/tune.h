// hadal bench tune: tries kernel settings and thread counts on a model's shapes and says which are fastest here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "bench/tuning_cache.h"

namespace hadal {

struct TuneOptions {
  std::filesystem::path model;  // a folder or a config.json
  std::string isa = "auto";
  int num_threads = 0;  // 0: thread counts are tried too
  int rounds = 7;
  uint64_t memory_bytes = uint64_t{512} << 20;  // of matrices; more than any cache holds
};

struct TuneCandidate {
  std::string what;  // "prefetch 2048 bytes"
  MachineTuning tuning;
  double relative_time = 1;  // to the settings that the stage began with, median over rounds
};

struct TuneReport {
  const KernelTable* kernels = nullptr;
  MachineTuning best;
  std::vector<TuneCandidate> tried;
};

// Settings that tune tries, the default among them.
std::vector<int64_t> prefetch_candidates();
std::vector<int64_t> group_candidates();

// In stages: prefetch distance on few tokens, group size on many, then threads. Rounds run every candidate once, so
// that slow moments of the machine meet all of them. A candidate must be 2 % faster to replace what there is. Leaves
// the kernels set up with the best. Errors: those of options, config and memory.
Expected<TuneReport> run_tune(const TuneOptions& options);
std::string tune_text(const TuneReport& report);

}  // namespace hadal
