#include "bench/tune.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <utility>

#include "base/progress.h"
#include "base/topology.h"
#include "bench/kernel_cases.h"
#include "bench/loaded_model.h"
#include "bench/report.h"

namespace hadal {
namespace {

constexpr double kWorthwhile = 0.98;

std::unique_ptr<ThreadPool> make_pool(int num_threads) {
  const CpuTopology topology = detect_topology();
  ThreadPoolOptions options;
  options.num_threads = num_threads;
  // More threads than cores share cores: every logical processor is used.
  options.pin_cpus = num_threads <= static_cast<int>(topology.cores.size()) ? topology.cores : topology.cpus;
  return std::make_unique<ThreadPool>(std::move(options));
}

// The largest consumers of a step, once for each number of tokens.
std::vector<KernelCase> probe_cases(const ModelConfig& config, const std::vector<int64_t>& tokens) {
  std::vector<KernelCase> cases;
  for (KernelCase what : matrix_cases(config)) {
    const bool is_large = what.name == "q_b" || what.name == "q" || what.name == "o" ||
                          what.name.find("gate+up") != std::string::npos || what.name.find("down") != std::string::npos;
    if (!is_large) continue;
    for (const int64_t count : tokens) {
      what.tokens = count;
      cases.push_back(what);
    }
  }
  return cases;
}

std::vector<int> thread_candidates() {
  const CpuTopology topology = detect_topology();
  const int cores = default_num_threads(topology), logical = static_cast<int>(topology.cpus.size());
  std::vector<int> counts = {cores};
  for (const int count : {cores / 2, cores - 1, logical}) {
    if (count >= 1 && std::find(counts.begin(), counts.end(), count) == counts.end()) counts.push_back(count);
  }
  return counts;
}

class Tuner {
 public:
  Tuner(const TuneOptions& options, const ModelConfig& config, KernelRunner& runner, TuneReport& report)
      : options_(options), config_(config), runner_(runner), report_(report) {}

  Status run() {
    const int fixed_threads = options_.num_threads;
    report_.best.num_threads = fixed_threads > 0 ? fixed_threads : default_num_threads();
    std::vector<TuneCandidate> candidates;
    const auto add = [&](std::string what) -> MachineTuning& {
      candidates.push_back({.what = std::move(what), .tuning = report_.best});
      return candidates.back().tuning;
    };
    for (const int64_t bytes : prefetch_candidates()) {
      add(fmt::format("prefetch {} bytes", bytes)).kernels.prefetch_bytes = bytes;
    }
    HADAL_RETURN_IF_ERROR(run_stage(std::exchange(candidates, {}), {1, 4}));
    for (const int64_t tokens : group_candidates()) {
      add(fmt::format("groups of {} tokens", tokens)).kernels.max_group_tokens = tokens;
    }
    HADAL_RETURN_IF_ERROR(run_stage(std::exchange(candidates, {}), {16, 60}));
    if (fixed_threads > 0) return set_kernel_tuning(report_.best.kernels);
    for (const int threads : thread_candidates()) add(fmt::format("{} threads", threads)).num_threads = threads;
    HADAL_RETURN_IF_ERROR(run_stage(std::exchange(candidates, {}), {1, 60}));
    return set_kernel_tuning(report_.best.kernels);
  }

 private:
  // Times all candidates against the current best, which must be one of them, and keeps the fastest.
  Status run_stage(std::vector<TuneCandidate> candidates, const std::vector<int64_t>& tokens) {
    const std::vector<KernelCase> cases = probe_cases(config_, tokens);
    std::vector<std::vector<double>> log_times(candidates.size());
    ProgressBar bar("tuning", "run");
    for (int round = 0; round <= options_.rounds; ++round) {  // round 0 warms up
      for (size_t i = 0; i < candidates.size(); ++i) {
        HADAL_ASSIGN_OR_RETURN(const double log_time, time_of(candidates[i].tuning, cases));
        if (round > 0) log_times[i].push_back(log_time);
        bar.update(static_cast<uint64_t>(round) * candidates.size() + i + 1,
                   static_cast<uint64_t>(options_.rounds + 1) * candidates.size());
      }
    }
    const size_t base = index_of(candidates, report_.best);
    size_t best = base;
    for (size_t i = 0; i < candidates.size(); ++i) {
      std::vector<double> ratios;
      for (size_t round = 0; round < log_times[i].size(); ++round) {
        ratios.push_back(std::exp(log_times[i][round] - log_times[base][round]));
      }
      candidates[i].relative_time = spread_of(std::move(ratios)).median;
      if (candidates[i].relative_time < candidates[best].relative_time) best = i;
    }
    if (candidates[best].relative_time < kWorthwhile) report_.best = candidates[best].tuning;
    report_.tried.insert(report_.tried.end(), candidates.begin(), candidates.end());
    return {};
  }

  static size_t index_of(const std::vector<TuneCandidate>& candidates, const MachineTuning& tuning) {
    for (size_t i = 0; i < candidates.size(); ++i) {
      const MachineTuning& other = candidates[i].tuning;
      if (other.num_threads == tuning.num_threads &&
          other.kernels.max_group_tokens == tuning.kernels.max_group_tokens &&
          other.kernels.prefetch_bytes == tuning.kernels.prefetch_bytes) {
        return i;
      }
    }
    return 0;
  }

  // Mean logarithm of the times: every case counts the same, however large.
  Expected<double> time_of(const MachineTuning& tuning, const std::vector<KernelCase>& cases) {
    HADAL_RETURN_IF_ERROR(set_kernel_tuning(tuning.kernels));
    if (!pool_ || pool_->num_threads() != tuning.num_threads) pool_ = make_pool(tuning.num_threads);
    double sum = 0;
    for (const KernelCase& what : cases) {
      const auto begin = std::chrono::steady_clock::now();
      runner_.run(what, *pool_);
      sum += std::log(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return cases.empty() ? 0 : sum / static_cast<double>(cases.size());
  }

  const TuneOptions& options_;
  const ModelConfig& config_;
  KernelRunner& runner_;
  TuneReport& report_;
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace

std::vector<int64_t> prefetch_candidates() { return {4096, 0, 1024, 2048, 8192}; }
std::vector<int64_t> group_candidates() { return {12, 10, 8, 6}; }

Expected<TuneReport> run_tune(const TuneOptions& options) {
  if (options.rounds < 1 || options.rounds > 1000) {
    return make_error(ErrorCode::kInvalidArgument, "--rounds {}: must be 1 to 1000", options.rounds);
  }
  TuneReport report;
  HADAL_ASSIGN_OR_RETURN(report.kernels, select_kernels(options.isa));
  HADAL_ASSIGN_OR_RETURN(const ModelConfig config, read_config(options.model));
  HADAL_ASSIGN_OR_RETURN(KernelRunner runner, KernelRunner::create(config, *report.kernels, options.memory_bytes));
  HADAL_RETURN_IF_ERROR(Tuner(options, config, runner, report).run());
  return report;
}

std::string tune_text(const TuneReport& report) {
  std::string text = fmt::format("{:<24}{:>14}\n", "", "relative time");
  for (const TuneCandidate& candidate : report.tried) {
    text += fmt::format("{:<24}{:>14.3f}\n", candidate.what, candidate.relative_time);
  }
  return text + fmt::format("\nbest for {}: prefetch {} bytes, groups of {} tokens, {} threads\n", report.kernels->name,
                            report.best.kernels.prefetch_bytes, report.best.kernels.max_group_tokens,
                            report.best.num_threads);
}

}  // namespace hadal
