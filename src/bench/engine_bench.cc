#include "bench/engine_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <utility>

#include "bench/null_model.h"
#include "bench/probe_team.h"
#include "engine/engine_core.h"
#include "kernels/kernels.h"
#include "kernels/row_math.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Small, so that sampling takes no time worth mentioning in steps.
constexpr int64_t kSmallVocabulary = 16;
constexpr int64_t kPromptTokens = 100;

EngineOptions engine_options(int64_t num_sequences, int64_t max_tokens) {
  EngineOptions options;
  options.max_model_len = kPromptTokens + max_tokens + 1;
  options.max_num_seqs = num_sequences;
  options.max_num_batched_tokens = 512;
  options.num_blocks = num_sequences * (options.max_model_len / options.block_size + 2);
  options.check_invariants = false;
  return options;
}

Request make_request(int64_t number, int64_t max_tokens) {
  Request request;
  request.request_id = fmt::format("bench-{}", number);
  for (int64_t i = 0; i < kPromptTokens; ++i) {
    request.prompt_ids.push_back(static_cast<int32_t>((number * 31 + i) % kSmallVocabulary));
  }
  request.sampling.temperature = 0;
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  return request;
}

// Seconds that each step spent outside the model.
class StepTimer {
 public:
  explicit StepTimer(EngineCore& core) : core_(core) {}
  double step() {
    const double model_before = core_.model().profile().wall_s;
    const auto begin = Clock::now();
    core_.step();
    return seconds_since(begin) - (core_.model().profile().wall_s - model_before);
  }

 private:
  EngineCore& core_;
};

EngineBenchRow measure_decode(const EngineBenchOptions& options) {
  const int64_t max_tokens = options.num_steps + 64;
  EngineCore core(std::make_unique<NullModel>(kSmallVocabulary), engine_options(options.num_sequences, max_tokens));
  for (int64_t i = 0; i < options.num_sequences; ++i) core.add(make_request(i, max_tokens), [](RequestOutput&&) {});
  StepTimer timer(core);
  while (core.stats().generation_tokens < static_cast<uint64_t>(2 * options.num_sequences)) timer.step();
  std::vector<double> seconds;
  for (int64_t i = 0; i < options.num_steps; ++i) seconds.push_back(timer.step());
  const Spread spread = spread_of(std::move(seconds));
  return {.name = fmt::format("plan + commit, {} sequences", options.num_sequences),
          .kind = "step",
          .seconds = spread,
          .goal = 50,
          .value = 1e6 * spread.median,
          .unit = "us"};
}

// Steps while `queued` more requests wait. Short answers, so that some end and others enter all the time; each one that
// ends is replaced, which keeps the queue's length.
EngineBenchRow measure_queue(const EngineBenchOptions& options, int64_t queued) {
  constexpr int64_t kMaxTokens = 40;
  EngineCore core(std::make_unique<NullModel>(kSmallVocabulary), engine_options(options.num_sequences, kMaxTokens));
  int64_t num_added = 0, num_ended = 0;
  const auto add = [&] {
    core.add(make_request(num_added++, kMaxTokens), [&](RequestOutput&& output) {
      if (output.finish_reason != FinishReason::kNone) ++num_ended;
    });
  };
  while (num_added < queued + options.num_sequences) add();
  StepTimer timer(core);
  std::vector<double> seconds;
  for (int64_t i = 0; i < 2 * options.num_steps; ++i) {
    const int64_t ended_before = num_ended;
    double cost = timer.step();
    const auto begin = Clock::now();
    for (int64_t n = ended_before; n < num_ended; ++n) add();
    cost += seconds_since(begin);
    if (i >= options.num_steps) seconds.push_back(cost);
  }
  const double mean = [&] {
    double sum = 0;
    for (const double s : seconds) sum += s;
    return sum / static_cast<double>(seconds.size());
  }();
  return {.name = fmt::format("a step with {} queued", queued),
          .kind = "queue",
          .seconds = spread_of(seconds),
          .value = 1e6 * mean,
          .unit = "us, mean"};
}

// Rows of logits as a step leaves them, one for each sequence. Peaked, as a language model's are: a bell of width 2 and
// some tokens far above it. Flat rows have the bell alone.
class SamplingBench {
 public:
  SamplingBench(const EngineBenchOptions& options, const RowMath& row_math, bool peaked)
      : num_rows_(options.num_sequences),
        vocab_size_(options.vocab_size),
        sampler_(options.vocab_size, 0, row_math),
        logits_(static_cast<size_t>(num_rows_ * vocab_size_)) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0, 2);
    for (float& logit : logits_) logit = normal(random);
    std::exponential_distribution<float> above(0.5F);
    for (int64_t i = 0; peaked && i < num_rows_ * kPeaks; ++i) {
      logits_[static_cast<size_t>(i / kPeaks * vocab_size_) + random() % static_cast<size_t>(vocab_size_)] =
          10 + above(random);
    }
  }

  // Reading every row once, seconds for a row: the yardstick. The best of all read loops, since a loop that is itself
  // the bottleneck would flatter whatever is measured against it. They want whole pieces of 256 aligned bytes: what is
  // left out at the ends does not matter with a real vocabulary.
  double read_seconds() {
    const auto address = reinterpret_cast<uintptr_t>(logits_.data());
    const auto skipped_bytes = static_cast<int64_t>((64 - address % 64) % 64);
    const char* data = reinterpret_cast<const char*>(logits_.data()) + skipped_bytes;
    const int64_t num_bytes = (static_cast<int64_t>(logits_.size() * sizeof(float)) - skipped_bytes) / 256 * 256;
    double best = HUGE_VAL;
    for (int i = 0; i < kRounds; ++i) {
      for (const ProbeLoops* loops : usable_probe_loops()) {
        for (const ReadLoop* loop = loops->reads; loop->run != nullptr; ++loop) {
          const auto begin = Clock::now();
          sink_ = sink_ ^ loop->run(data, num_bytes);
          best = std::min(best, seconds_since(begin));
        }
      }
    }
    return best / static_cast<double>(num_rows_);
  }

  Expected<EngineBenchRow> measure(const char* name, const SamplingParams& params, double read_s) {
    std::vector<double> seconds;
    for (int i = 0; i < kRounds; ++i) {
      HADAL_ASSIGN_OR_RETURN(const double s, round_seconds([&](float* row) {
                               const SampleContext context = {.rules = {.params = &params, .counts = &no_counts_},
                                                              .position = static_cast<uint64_t>(i)};
                               return sampler_.sample(row, context, token_);
                             }));
      seconds.push_back(s);
    }
    const Spread spread = spread_of(std::move(seconds));
    return EngineBenchRow{.name = fmt::format("sampling, {}", name),
                          .kind = "sampling",
                          .seconds = spread,
                          .goal = 4,
                          .value = spread.median / read_s,
                          .unit = "reads of the logits"};
  }

 private:
  static constexpr int kRounds = 7;
  static constexpr int64_t kPeaks = 30;

  // Seconds for a row, mean over all rows.
  template <typename Fn>
  Expected<double> round_seconds(Fn&& fn) {
    const auto begin = Clock::now();
    for (int64_t row = 0; row < num_rows_; ++row) HADAL_RETURN_IF_ERROR(fn(logits_.data() + row * vocab_size_));
    return seconds_since(begin) / static_cast<double>(num_rows_);
  }

  int64_t num_rows_, vocab_size_;
  Sampler sampler_;
  TokenCounts no_counts_;
  TokenOutput token_;
  std::vector<float> logits_;
  volatile uint64_t sink_ = 0;
};

Status measure_sampling(const EngineBenchOptions& options, std::vector<EngineBenchRow>& rows) {
  HADAL_ASSIGN_OR_RETURN(const KernelTable* kernels, select_kernels(options.isa));
  const RowMath& row_math = row_math_for(kernels->isa);
  SamplingBench peaked(options, row_math, true), flat(options, row_math, false);
  const double read_s = peaked.read_seconds();
  rows.push_back({.name = fmt::format("one read of {} logits", options.vocab_size),
                  .kind = "sampling",
                  .seconds = {read_s, read_s, read_s},
                  .value = 1,
                  .unit = "reads of the logits"});
  SamplingParams greedy, all, top_k, top_p, hot_top_p, logprobs;
  greedy.temperature = 0;
  top_k.top_k = 50;
  top_p.top_p = 0.95F;
  top_p.temperature = 0.6F;
  hot_top_p.top_p = 0.95F;
  logprobs.temperature = 0;
  logprobs.num_logprobs = 5;
  struct Case {
    const char* name;
    const SamplingParams* params;
    SamplingBench* bench;
  };
  const Case cases[] = {{"greedy", &greedy, &peaked},
                        {"temperature 1", &all, &peaked},
                        {"top-k 50", &top_k, &peaked},
                        {"temperature 0.6, top-p 0.95", &top_p, &peaked},
                        {"temperature 1, top-p 0.95", &hot_top_p, &peaked},
                        {"greedy, 5 logprobs", &logprobs, &peaked},
                        {"temperature 0.6, top-p 0.95, flat", &top_p, &flat}};
  for (const Case& c : cases) {
    HADAL_ASSIGN_OR_RETURN(EngineBenchRow row, c.bench->measure(c.name, *c.params, read_s));
    if (c.bench == &flat) row.goal = 0;  // no model gives such logits
    rows.push_back(std::move(row));
  }
  return {};
}

Status check(const EngineBenchOptions& options) {
  const auto in_range = [](int64_t value, int64_t most) { return value >= 1 && value <= most; };
  if (!in_range(options.num_sequences, 4096)) {
    return make_error(ErrorCode::kInvalidArgument, "--sequences {}: must be 1 to 4096", options.num_sequences);
  }
  if (!in_range(options.num_steps, 100'000)) {
    return make_error(ErrorCode::kInvalidArgument, "--steps {}: must be 1 to 100000", options.num_steps);
  }
  if (!in_range(options.vocab_size, 1 << 22)) {
    return make_error(ErrorCode::kInvalidArgument, "--vocab {}: must be 1 to {}", options.vocab_size, 1 << 22);
  }
  for (const int64_t queued : options.queue_lengths) {
    if (!in_range(queued, 1'000'000)) {
      return make_error(ErrorCode::kInvalidArgument, "--queued {}: must be 1 to 1000000", queued);
    }
  }
  return {};
}

}  // namespace

Expected<EngineBenchReport> run_engine_bench(const EngineBenchOptions& options) {
  HADAL_RETURN_IF_ERROR(check(options));
  EngineBenchReport report;
  report.host = host_facts();
  report.flags = {{"sequences", options.num_sequences},
                  {"steps", options.num_steps},
                  {"vocab", options.vocab_size},
                  {"isa", options.isa}};
  report.rows.push_back(measure_decode(options));
  for (const int64_t queued : options.queue_lengths) report.rows.push_back(measure_queue(options, queued));
  HADAL_RETURN_IF_ERROR(measure_sampling(options, report.rows));
  return report;
}

Json engine_report_json(const EngineBenchReport& report) {
  Json rows = Json::array();
  for (const EngineBenchRow& row : report.rows) {
    rows.push_back({{"name", row.name},
                    {"kind", row.kind},
                    {"seconds", spread_json(row.seconds)},
                    {"value", row.value},
                    {"unit", row.unit},
                    {"goal", row.goal}});
  }
  return {{"kind", "engine"}, {"machine", host_json(report.host)}, {"flags", report.flags}, {"rows", std::move(rows)}};
}

std::string engine_report_table(const EngineBenchReport& report) {
  std::string text = fmt::format("{:<40}{:>12}{:>24}{:>12}  {}\n", "", "us, median", "min-max", "", "goal");
  for (const EngineBenchRow& row : report.rows) {
    const std::string range = fmt::format("{:.2f}-{:.2f}", 1e6 * row.seconds.min, 1e6 * row.seconds.max);
    const std::string goal = row.goal > 0 ? fmt::format(", at most {:.0f}", row.goal) : "";
    text += fmt::format("{:<40}{:>12.2f}{:>24}{:>12.2f}  {}{}\n", row.name, 1e6 * row.seconds.median, range, row.value,
                        row.unit, goal);
  }
  return text;
}

}  // namespace hadal
