#include "bench/latency.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "base/progress.h"
#include "bench/step_driver.h"
#include "bench/tuning_cache.h"

namespace hadal {
namespace {

// A repetition of decode steps lasts about this long: longer than a sample of the bandwidth, shorter than its changes.
constexpr double kRepetitionSeconds = 0.25;
constexpr int64_t kMaxStepsPerRepetition = 16;

Status check_positive(const char* flag, const std::vector<int64_t>& values, int64_t least) {
  constexpr int64_t kMost = int64_t{1} << 24;
  for (const int64_t value : values) {
    if (value < least || value > kMost) {
      return make_error(ErrorCode::kInvalidArgument, "{} {}: must be {} to {}", flag, value, least, kMost);
    }
  }
  return {};
}

Status check(const LatencyOptions& options) {
  HADAL_RETURN_IF_ERROR(check_positive("--prefill", options.prefill_tokens, 1));
  HADAL_RETURN_IF_ERROR(check_positive("--batch", options.batches, 1));
  HADAL_RETURN_IF_ERROR(check_positive("--depth", options.depths, 0));
  HADAL_RETURN_IF_ERROR(check_positive("--repetitions", {options.repetitions}, 1));
  HADAL_RETURN_IF_ERROR(check_positive("--max-num-batched-tokens", {options.max_num_batched_tokens}, 1));
  if (options.prefill_tokens.empty() && (options.batches.empty() || options.depths.empty())) {
    return make_error(ErrorCode::kInvalidArgument, "nothing to measure: give --prefill, or --batch and --depth");
  }
  return {};
}

std::vector<RowShape> wanted_rows(const LatencyOptions& options) {
  std::vector<RowShape> rows;
  for (const int64_t tokens : options.prefill_tokens) rows.push_back({.kind = RowKind::kPrefill, .tokens = tokens});
  for (const int64_t depth : options.depths) {
    for (const int64_t batch : options.batches) rows.push_back({.tokens = batch, .batch = batch, .depth = depth});
  }
  return rows;
}

int64_t longest_sequence(const RowShape& row) { return row.kind == RowKind::kPrefill ? row.tokens : row.depth + 1; }
int64_t blocks_of(const RowShape& row) { return blocks_for(row.batch, longest_sequence(row)); }

class LatencyBench {
 public:
  explicit LatencyBench(const LatencyOptions& options) : options_(options) {}

  Expected<BenchReport> run() {
    HADAL_ASSIGN_OR_RETURN(loaded_, load_for_bench(options_.model));
    rows_ = wanted_rows(options_);
    HADAL_RETURN_IF_ERROR(allocate());
    HADAL_RETURN_IF_ERROR(sample_first_token());
    HADAL_RETURN_IF_ERROR(measure_machine());
    describe();
    loaded_.model->fill_kv(options_.seed);
    const double others_before_s = others_cpu_s(), started_s = process_age_s();
    ProgressBar bar("measuring", "row");
    for (const RowShape& row : rows_) {
      bar.update(report_.rows.size(), rows_.size());
      HADAL_RETURN_IF_ERROR(measure(row));
    }
    bar.update(rows_.size(), rows_.size());
    note_noise(others_cpu_s() - others_before_s, process_age_s() - started_s);
    return std::move(report_);
  }

 private:
  // Drops rows without room and allocates the cache for the largest that is left.
  Status allocate() {
    int64_t max_batch = 1;
    for (const RowShape& row : rows_) max_batch = std::max(max_batch, row.batch);
    const int64_t max_positions = loaded_.config.max_position_embeddings;
    const int64_t max_tokens = std::max(options_.max_num_batched_tokens, max_batch);
    WorkspaceLimits limits = {.max_tokens = max_tokens,
                              .max_positions = max_positions,
                              .num_threads = loaded_.num_threads,
                              .kv_dtype = loaded_.kv_dtype};
    // The bandwidth probe's memory, and the logits.
    const uint64_t extra_bytes =
        kProbeBytes + static_cast<uint64_t>(max_batch * loaded_.config.vocab_size) * sizeof(float);
    const int64_t fitting = blocks_that_fit(loaded_, limits, kBenchBlockSize, extra_bytes);
    int64_t num_blocks = 0;
    std::vector<RowShape> kept;
    for (const RowShape& row : rows_) {
      const int64_t needed = blocks_of(row);
      if (longest_sequence(row) > max_positions) {
        note("{} left out: the model has {} positions", row_name(row), max_positions);
      } else if (needed > fitting) {
        note("{} left out: its cache needs {:.2f} GB, {:.2f} GB fit", row_name(row), cache_gb(needed),
             cache_gb(fitting));
      } else {
        kept.push_back(row);
        num_blocks = std::max(num_blocks, needed);
      }
    }
    rows_ = std::move(kept);
    if (rows_.empty()) return make_error(ErrorCode::kResourceExhausted, "{}", report_.notes.front());
    HADAL_RETURN_IF_ERROR(loaded_.model->allocate_kv(num_blocks, kBenchBlockSize, max_tokens));
    report_.load.kv_bytes = static_cast<uint64_t>(num_blocks * kBenchBlockSize * loaded_.model->kv_bytes_per_token());
    limits.max_positions = std::min(max_positions, num_blocks * kBenchBlockSize);
    report_.load.workspace_bytes = workspace_bytes(loaded_.config, *loaded_.kernels, limits);
    driver_.emplace(*loaded_.model,
                    StepLimits{.num_blocks = num_blocks,
                               .max_num_batched_tokens = options_.max_num_batched_tokens,
                               .max_batch = max_batch},
                    options_.seed);
    return {};
  }

  Status sample_first_token() {
    const RowShape& first = rows_.front();
    const int64_t prompt = first.kind == RowKind::kPrefill ? first.tokens : 1;
    HADAL_RETURN_IF_ERROR(driver_->prefill(prompt));
    report_.load.first_token_s = process_age_s();
    report_.load.first_token_prompt = prompt;
    report_.load.memory = process_memory();
    return {};
  }

  Status measure_machine() {
    CeilingOptions ceilings;
    ceilings.num_threads = loaded_.num_threads;
    ceilings.seconds = options_.ceiling_seconds;
    HADAL_ASSIGN_OR_RETURN(report_.ceilings, measure_ceilings(ceilings));
    HADAL_ASSIGN_OR_RETURN(probe_, ReadProbe::create(loaded_.num_threads, kProbeBytes));
    report_.multiply_format = multiply_format(*loaded_.kernels);
    ceiling_.multiply_flops =
        report_.multiply_format == "bf16" ? report_.ceilings.bf16_flops : report_.ceilings.fp32_flops;
    ceiling_.barrier_s = report_.ceilings.barrier_s;
    return {};
  }

  void describe() {
    report_.host = host_facts();
    report_.model = model_json(options_.model.dir, loaded_.config);
    report_.flags = {{"isa", loaded_.kernels->name},
                     {"kv_cache_dtype", dtype_name(loaded_.kv_dtype)},
                     {"threads", loaded_.num_threads},
                     {"max_num_batched_tokens", options_.max_num_batched_tokens},
                     {"repetitions", options_.repetitions},
                     {"block_size", kBenchBlockSize},
                     {"seed", options_.seed},
                     {"tuning", tuning_json()}};
    report_.load.seconds = loaded_.seconds;
    report_.load.checkpoint_bytes = loaded_.read_bytes;
    report_.load.weight_bytes = loaded_.weight_bytes;
  }

  Expected<TimedStep> run_once(const RowShape& row) {
    return row.kind == RowKind::kPrefill ? driver_->prefill(row.tokens) : driver_->decode(row.batch, row.depth);
  }

  Status measure(const RowShape& row) {
    // Untimed: code and caches warm, and how long a step takes.
    const RowShape warm_up = row.kind == RowKind::kPrefill
                                 ? RowShape{.kind = RowKind::kPrefill, .tokens = std::min(row.tokens, kBenchTileTokens)}
                                 : row;
    HADAL_ASSIGN_OR_RETURN(const TimedStep warm, run_once(warm_up));
    int64_t num_steps = 1;
    if (row.kind == RowKind::kDecode) {
      num_steps = std::clamp(static_cast<int64_t>(kRepetitionSeconds / std::max(warm.seconds, 1e-6)), int64_t{1},
                             kMaxStepsPerRepetition);
    }
    std::vector<Repetition> repetitions;
    double before = probe_->sample();
    for (int64_t i = 0; i < options_.repetitions; ++i) {
      Repetition& repetition = repetitions.emplace_back();
      const StepProfile begin = loaded_.model->profile();
      for (int64_t step = 0; step < num_steps; ++step) {
        HADAL_ASSIGN_OR_RETURN(const TimedStep timed, run_once(row));
        repetition.seconds.push_back(timed.seconds);
        repetition.sampling_s += timed.sampling_s;
      }
      repetition.profile = loaded_.model->profile() - begin;
      const double after = probe_->sample();
      repetition.read_bytes_per_s = std::max(before, after);
      before = after;
    }
    report_.rows.push_back(make_row(row, repetitions, ceiling_));
    return {};
  }

  void note_noise(double others_s, double seconds) {
    constexpr double kNoticeableCores = 0.1;
    report_.others_cores = seconds > 0 ? std::max(0.0, others_s / seconds) : 0;
    if (report_.others_cores > kNoticeableCores) {
      note("other processes used {:.2f} cores meanwhile: these figures are too low", report_.others_cores);
    }
  }

  double cache_gb(int64_t num_blocks) const {
    return 1e-9 * static_cast<double>(num_blocks * kBenchBlockSize * loaded_.model->kv_bytes_per_token());
  }
  template <typename... Args>
  void note(fmt::format_string<Args...> format, Args&&... args) {
    report_.notes.push_back(fmt::format(format, std::forward<Args>(args)...));
  }

  static constexpr uint64_t kProbeBytes = uint64_t{1} << 30;

  const LatencyOptions& options_;
  LoadedModel loaded_;
  std::vector<RowShape> rows_;
  std::optional<StepDriver> driver_;
  std::unique_ptr<ReadProbe> probe_;
  StepCeiling ceiling_;
  BenchReport report_;
};

}  // namespace

Expected<BenchReport> run_latency(const LatencyOptions& options) {
  HADAL_RETURN_IF_ERROR(check(options));
  return LatencyBench(options).run();
}

}  // namespace hadal
