#include "bench/kernel_bench.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "base/progress.h"
#include "base/topology.h"
#include "bench/loaded_model.h"
#include "bench/tuning_cache.h"

namespace hadal {
namespace {

constexpr uint64_t kProbeBytes = uint64_t{512} << 20;

std::vector<KernelCase> all_cases(const ModelConfig& config, const KernelBenchOptions& options) {
  std::vector<KernelCase> cases;
  for (const KernelCase& shape : matrix_cases(config)) {
    for (const int64_t tokens : options.tokens) {
      cases.push_back(shape);
      cases.back().tokens = tokens;
    }
  }
  const auto add = [&](KernelOp op, const char* name, const std::vector<int64_t>& lengths) {
    for (const int64_t tokens : lengths) {
      cases.push_back(
          {.op = op, .name = name, .rows = config.num_attention_heads, .cols = config.kv_lora_rank, .tokens = tokens});
    }
  };
  add(KernelOp::kAbsorbed, "absorbed attention", options.absorbed_positions);
  add(KernelOp::kExpanded, "expanded attention", options.expanded_tokens);
  return cases;
}

// One number of threads: its pool, its ceilings, its rows.
class ThreadsBench {
 public:
  ThreadsBench(const KernelBenchOptions& options, KernelRunner& runner, KernelReport& report)
      : options_(options), runner_(runner), report_(report) {}

  Status run(int num_threads, const std::vector<KernelCase>& cases) {
    ThreadPoolOptions pool;
    pool.num_threads = num_threads;
    pool.pin_cpus = detect_topology().cores;
    pool_ = std::make_unique<ThreadPool>(pool);
    CeilingOptions ceilings;
    ceilings.num_threads = num_threads;
    ceilings.seconds = options_.ceiling_seconds;
    HADAL_ASSIGN_OR_RETURN(Ceilings measured, measure_ceilings(ceilings));
    multiply_flops_ = report_.multiply_format == "bf16" ? measured.bf16_flops : measured.fp32_flops;
    report_.ceilings.push_back(std::move(measured));
    HADAL_ASSIGN_OR_RETURN(probe_, ReadProbe::create(num_threads, kProbeBytes));
    ProgressBar bar(fmt::format("{} threads", num_threads), "row");
    for (size_t i = 0; i < cases.size(); ++i) {
      bar.update(i, cases.size());
      measure(cases[i], num_threads);
    }
    bar.update(cases.size(), cases.size());
    return {};
  }

 private:
  void measure(const KernelCase& what, int num_threads) {
    using Clock = std::chrono::steady_clock;
    runner_.run(what, *pool_);  // untimed: memory touched, code warm
    std::vector<double> seconds, shares, bandwidths;
    KernelRunner::Work work;
    double before = probe_->sample();
    for (int64_t i = 0; i < options_.repetitions; ++i) {
      const auto begin = Clock::now();
      work = runner_.run(what, *pool_);
      seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
      const double after = probe_->sample();
      bandwidths.push_back(std::max(before, after));
      before = after;
      shares.push_back(std::max(work.bytes / bandwidths.back(), work.flops / multiply_flops_) / seconds.back());
    }
    KernelRow row = {.what = what, .num_threads = num_threads, .seconds = spread_of(seconds)};
    row.bytes = work.bytes;
    row.flops = work.flops;
    row.gb_per_s = 1e-9 * work.bytes / row.seconds.median;
    row.gflops = 1e-9 * work.flops / row.seconds.median;
    row.read_bytes_per_s = spread_of(bandwidths).median;
    row.ceiling_share = spread_of(shares).median;
    report_.rows.push_back(std::move(row));
  }

  const KernelBenchOptions& options_;
  KernelRunner& runner_;
  KernelReport& report_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<ReadProbe> probe_;
  double multiply_flops_ = 0;
};

Status check(const KernelBenchOptions& options) {
  constexpr int64_t kMost = 1 << 16;
  for (const auto* list : {&options.tokens, &options.absorbed_positions, &options.expanded_tokens}) {
    for (const int64_t value : *list) {
      if (value < 1 || value > kMost) {
        return make_error(ErrorCode::kInvalidArgument, "{} tokens: must be 1 to {}", value, kMost);
      }
    }
  }
  for (const int64_t threads : options.threads) {
    if (threads < 0 || threads > 4096) {
      return make_error(ErrorCode::kInvalidArgument, "--threads {}: must be 0 to 4096", threads);
    }
  }
  if (options.repetitions < 1) return make_error(ErrorCode::kInvalidArgument, "--repetitions must be at least 1");
  return {};
}

std::string shape_text(const KernelCase& what) {
  switch (what.op) {
    case KernelOp::kAbsorbed:
      return fmt::format("{} heads @{}", what.rows, what.tokens);
    case KernelOp::kExpanded:
      return fmt::format("{} heads x {}", what.rows, what.tokens);
    default:
      return fmt::format("{}x{} {}", what.rows, what.cols, dtype_name(what.dtype));
  }
}

bool is_attention(const KernelCase& what) { return what.op == KernelOp::kAbsorbed || what.op == KernelOp::kExpanded; }

}  // namespace

Expected<KernelReport> run_kernel_bench(const KernelBenchOptions& options) {
  HADAL_RETURN_IF_ERROR(check(options));
  HADAL_ASSIGN_OR_RETURN(const KernelTable* kernels, select_kernels(options.isa));
  HADAL_ASSIGN_OR_RETURN(const ModelConfig config, read_config(options.model));
  HADAL_ASSIGN_OR_RETURN(KernelRunner runner, KernelRunner::create(config, *kernels, options.memory_bytes));
  apply_tuning(*kernels, 0);
  KernelReport report;
  report.host = host_facts();
  report.multiply_format = multiply_format(*kernels);
  report.model = model_json(options.model, config);
  report.flags = {{"isa", kernels->name}, {"repetitions", options.repetitions}, {"tuning", tuning_json()}};
  const std::vector<KernelCase> cases = all_cases(config, options);
  std::vector<int> done;
  for (const int64_t wanted : options.threads) {
    const int threads = wanted > 0 ? static_cast<int>(wanted) : default_num_threads();
    if (std::find(done.begin(), done.end(), threads) != done.end()) continue;
    done.push_back(threads);
    HADAL_RETURN_IF_ERROR(ThreadsBench(options, runner, report).run(threads, cases));
  }
  return report;
}

Json kernel_report_json(const KernelReport& report) {
  Json ceilings = Json::array(), rows = Json::array();
  for (const Ceilings& c : report.ceilings) ceilings.push_back(ceilings_to_json(c));
  for (const KernelRow& row : report.rows) {
    const std::string tokens = is_attention(row.what) ? "" : fmt::format(" M={}", row.what.tokens);
    rows.push_back({{"name", fmt::format("{} {}{} {}t", row.what.name, shape_text(row.what), tokens, row.num_threads)},
                    {"kind", row.what.name},
                    {"rows", row.what.rows},
                    {"cols", row.what.cols},
                    {"dtype", dtype_name(row.what.dtype)},
                    {"tokens", row.what.tokens},
                    {"threads", row.num_threads},
                    {"seconds", spread_json(row.seconds)},
                    {"bytes", row.bytes},
                    {"flops", row.flops},
                    {"gb_per_s", row.gb_per_s},
                    {"gflops", row.gflops},
                    {"read_bandwidth", row.read_bytes_per_s},
                    {"ceiling_share", row.ceiling_share}});
  }
  return {{"kind", "kernels"},
          {"machine", host_json(report.host)},
          {"ceilings", std::move(ceilings)},
          {"multiply_format", report.multiply_format},
          {"model", report.model},
          {"flags", report.flags},
          {"rows", std::move(rows)}};
}

std::string kernel_report_table(const KernelReport& report) {
  std::string text;
  size_t block = 0;
  const KernelRow* last = nullptr;
  for (const KernelRow& row : report.rows) {
    if (last == nullptr || last->num_threads != row.num_threads) {
      const Ceilings& c = report.ceilings[block++];
      const double multiply = report.multiply_format == "bf16" ? c.bf16_flops : c.fp32_flops;
      text += fmt::format("{}{} thread(s): best read {:.1f} GB/s, {} multiply {:.0f} GFLOP/s\n", block > 1 ? "\n" : "",
                          row.num_threads, 1e-9 * c.read_bytes_per_s, report.multiply_format, 1e-9 * multiply);
      text += fmt::format("{:<20}{:<22}{:>7}{:>11}{:>19}{:>9}{:>7}{:>10}{:>8}\n", "", "", "tokens", "ms", "min-max",
                          "GB/s", "of", "GFLOP/s", "ceil%");
      last = nullptr;
    }
    const bool repeats = last != nullptr && last->what.name == row.what.name && !is_attention(row.what);
    text +=
        fmt::format("{:<20}{:<22}{:>7}{:>11.2f}{:>19}{:>9.1f}{:>7.1f}{:>10.1f}{:>8.1f}\n", repeats ? "" : row.what.name,
                    repeats ? "" : shape_text(row.what), row.what.tokens, 1e3 * row.seconds.median,
                    fmt::format("{:.2f}-{:.2f}", 1e3 * row.seconds.min, 1e3 * row.seconds.max), row.gb_per_s,
                    1e-9 * row.read_bytes_per_s, row.gflops, 100 * row.ceiling_share);
    last = &row;
  }
  return text;
}

}  // namespace hadal
