#include "bench/throughput.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <utility>

#include "base/progress.h"
#include "bench/tuning_cache.h"
#include "engine/engine.h"
#include "kernels/row_math.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

struct RequestTimes {
  Clock::time_point submitted, first_token, last_token;
  std::vector<double> gaps_s;
  int64_t num_tokens = 0;
  bool failed = false;
};

Status check(const ThroughputOptions& o) {
  constexpr int64_t kMost = 1 << 20;
  const std::pair<const char*, int64_t> values[] = {{"--num-prompts", o.num_prompts},
                                                    {"--input-len", o.input_len},
                                                    {"--output-len", o.output_len},
                                                    {"--max-num-seqs", o.max_num_seqs},
                                                    {"--max-num-batched-tokens", o.max_num_batched_tokens},
                                                    {"--block-size", o.block_size}};
  for (const auto& [name, value] : values) {
    if (value < 1 || value > kMost) {
      return make_error(ErrorCode::kInvalidArgument, "{} {}: must be 1 to {}", name, value, kMost);
    }
  }
  return {};
}

// Owns what the engine's thread writes while requests run.
class ThroughputRun {
 public:
  ThroughputRun(const ThroughputOptions& options, ThroughputReport& report) : options_(options), report_(report) {}

  Status run(LoadedModel loaded) {
    const int64_t vocab_size = loaded.model->vocab_size();
    HADAL_ASSIGN_OR_RETURN(const EngineOptions engine_options, size_cache(loaded));
    HADAL_ASSIGN_OR_RETURN(
        const std::unique_ptr<Engine> engine,
        make_engine(std::move(loaded.model), engine_options, [this](const StepRecord& step) { count_step(step); }));
    times_.resize(static_cast<size_t>(options_.num_prompts));
    const auto begin = Clock::now();
    std::mt19937_64 random(options_.seed);
    for (int64_t i = 0; i < options_.num_prompts; ++i) {
      RequestTimes& times = times_[static_cast<size_t>(i)];
      times.submitted = Clock::now();
      HADAL_RETURN_IF_ERROR(engine->submit(random_request(i, vocab_size, random),
                                           [this, &times](RequestOutput&& output) { receive(output, times); }));
    }
    wait_for_all();
    engine->stop();
    report_.seconds = std::chrono::duration<double>(last_token_ - begin).count();
    summarise_requests();
    report_.shares = loss_shares(report_.profile, report_.step_seconds, sampling_s_, 0);
    return {};
  }

 private:
  Expected<EngineOptions> size_cache(const LoadedModel& loaded) const {
    EngineOptions engine;
    engine.max_model_len = options_.input_len + options_.output_len;
    engine.max_num_seqs = options_.max_num_seqs;
    engine.max_num_batched_tokens = options_.max_num_batched_tokens;
    engine.block_size = options_.block_size;
    engine.max_queued_requests = options_.num_prompts;
    engine.seed = options_.seed;
    engine.check_invariants = false;
    engine.row_math = &row_math_for(loaded.kernels->isa);
    const int64_t blocks_each = (engine.max_model_len + options_.block_size - 1) / options_.block_size;
    const int64_t wanted = (blocks_each + 1) * std::min(options_.max_num_seqs, options_.num_prompts);
    const WorkspaceLimits limits = {
        .max_tokens = options_.max_num_batched_tokens,
        .max_positions = std::min(engine.max_model_len, loaded.config.max_position_embeddings),
        .num_threads = loaded.num_threads,
        .kv_dtype = loaded.kv_dtype};
    const auto logits_bytes = static_cast<uint64_t>(options_.max_num_seqs * loaded.config.vocab_size) * sizeof(float);
    engine.num_blocks = std::min(wanted, blocks_that_fit(loaded, limits, options_.block_size, logits_bytes));
    if (engine.num_blocks < blocks_each) {
      return make_error(ErrorCode::kResourceExhausted, "the cache of one request needs {} blocks of {} tokens, {} fit",
                        blocks_each, options_.block_size, engine.num_blocks);
    }
    return engine;
  }

  Request random_request(int64_t number, int64_t vocab_size, std::mt19937_64& random) const {
    Request request;
    request.request_id = fmt::format("bench-{}", number);
    for (int64_t i = 0; i < options_.input_len; ++i) {
      request.prompt_ids.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size)));
    }
    request.sampling.temperature = 0;
    request.sampling.max_tokens = options_.output_len;
    request.sampling.ignore_eos = true;
    return request;
  }

  // Engine thread.
  void receive(const RequestOutput& output, RequestTimes& times) {
    const auto now = Clock::now();
    if (!output.tokens.empty()) {
      if (times.num_tokens == 0) {
        times.first_token = now;
      } else {
        times.gaps_s.push_back(std::chrono::duration<double>(now - times.last_token).count());
      }
      times.last_token = now;
      times.num_tokens += static_cast<int64_t>(output.tokens.size());
    }
    if (output.finish_reason == FinishReason::kNone) return;
    times.failed = output.finish_reason != FinishReason::kLength;
    const std::lock_guard lock(mutex_);
    last_token_ = now;
    ++num_done_;
    done_.notify_one();
  }

  // Engine thread.
  void count_step(const StepRecord& step) {
    ++report_.num_steps;
    report_.step_seconds += step.duration_s;
    report_.planning_seconds += step.planning_s;
    sampling_s_ += step.sampling_s;
    add_profile(report_.profile, step.forward);
  }

  void wait_for_all() {
    ProgressBar bar("serving", "request");
    std::unique_lock lock(mutex_);
    while (num_done_ < options_.num_prompts) {
      done_.wait_for(lock, std::chrono::milliseconds(200));
      bar.update(static_cast<uint64_t>(num_done_), static_cast<uint64_t>(options_.num_prompts));
    }
  }

  void summarise_requests() {
    std::vector<double> ttft, tpot, itl, e2e;
    const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
    for (const RequestTimes& times : times_) {
      if (times.failed) {
        ++report_.num_failed;
        continue;
      }
      ++report_.num_completed;
      report_.input_tokens += options_.input_len;
      report_.output_tokens += times.num_tokens;
      ttft.push_back(seconds(times.first_token - times.submitted));
      e2e.push_back(seconds(times.last_token - times.submitted));
      if (times.num_tokens > 1) {
        tpot.push_back(seconds(times.last_token - times.first_token) / static_cast<double>(times.num_tokens - 1));
      }
      itl.insert(itl.end(), times.gaps_s.begin(), times.gaps_s.end());
    }
    report_.ttft = summarise(std::move(ttft));
    report_.tpot = summarise(std::move(tpot));
    report_.itl = summarise(std::move(itl));
    report_.e2e = summarise(std::move(e2e));
  }

  const ThroughputOptions& options_;
  ThroughputReport& report_;  // steps: engine thread, until it stops
  std::vector<RequestTimes> times_;
  double sampling_s_ = 0;
  std::mutex mutex_;
  std::condition_variable done_;
  int64_t num_done_ = 0;          // guarded by mutex_
  Clock::time_point last_token_;  // guarded by mutex_
};

double per_second(int64_t count, double seconds) { return seconds > 0 ? static_cast<double>(count) / seconds : 0; }

Json summary_json(const LatencySummary& s) { return {{"mean", s.mean}, {"median", s.median}, {"p99", s.p99}}; }

}  // namespace

double percentile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - std::floor(at)) * (sorted[above] - sorted[below]);
}

LatencySummary summarise(std::vector<double> seconds) {
  if (seconds.empty()) return {};
  std::sort(seconds.begin(), seconds.end());
  double sum = 0;
  for (const double s : seconds) sum += s;
  return {.mean = sum / static_cast<double>(seconds.size()),
          .median = percentile(seconds, 0.5),
          .p99 = percentile(seconds, 0.99)};
}

Expected<ThroughputReport> run_throughput(const ThroughputOptions& options) {
  HADAL_RETURN_IF_ERROR(check(options));
  HADAL_ASSIGN_OR_RETURN(LoadedModel loaded, load_for_bench(options.model));
  ThroughputReport report;
  report.host = host_facts();
  report.model = model_json(options.model.dir, loaded.config);
  report.flags = {{"isa", loaded.kernels->name},
                  {"threads", loaded.num_threads},
                  {"num_prompts", options.num_prompts},
                  {"input_len", options.input_len},
                  {"output_len", options.output_len},
                  {"max_num_seqs", options.max_num_seqs},
                  {"max_num_batched_tokens", options.max_num_batched_tokens},
                  {"block_size", options.block_size},
                  {"seed", options.seed},
                  {"tuning", tuning_json()}};
  HADAL_RETURN_IF_ERROR(ThroughputRun(options, report).run(std::move(loaded)));
  return report;
}

Json throughput_json(const ThroughputReport& report) {
  const double total = per_second(report.input_tokens + report.output_tokens, report.seconds);
  const PhaseCost all = report.profile.total();
  Json shares = Json::object();
  for (size_t i = 0; i < kNumLosses; ++i) shares[kLossNames[i]] = report.shares[i];
  const Json row = {{"name", "throughput"},
                    {"kind", "throughput"},
                    {"completed", report.num_completed},
                    {"failed", report.num_failed},
                    {"seconds", spread_json({report.seconds, report.seconds, report.seconds})},
                    {"total_input_tokens", report.input_tokens},
                    {"total_output_tokens", report.output_tokens},
                    {"requests_per_s", per_second(report.num_completed, report.seconds)},
                    {"output_tokens_per_s", per_second(report.output_tokens, report.seconds)},
                    {"tokens_per_s", spread_json({total, total, total})},
                    {"ttft_s", summary_json(report.ttft)},
                    {"tpot_s", summary_json(report.tpot)},
                    {"itl_s", summary_json(report.itl)},
                    {"e2e_s", summary_json(report.e2e)},
                    {"steps", report.num_steps},
                    {"step_seconds", report.step_seconds},
                    {"planning_seconds", report.planning_seconds},
                    {"weight_bytes", all.weight_bytes},
                    {"kv_bytes", all.kv_bytes},
                    {"flops", all.flops},
                    {"shares", std::move(shares)}};
  return {{"kind", "throughput"},
          {"machine", host_json(report.host)},
          {"model", report.model},
          {"flags", report.flags},
          {"rows", Json::array({row})}};
}

std::string throughput_text(const ThroughputReport& r) {
  std::string text;
  const auto line = [&](const char* label, const std::string& value) {
    text += fmt::format("{:<36}{:>14}\n", label, value);
  };
  line("Successful requests", fmt::format("{}", r.num_completed));
  if (r.num_failed > 0) line("Failed requests", fmt::format("{}", r.num_failed));
  line("Duration (s)", fmt::format("{:.2f}", r.seconds));
  line("Total input tokens", fmt::format("{}", r.input_tokens));
  line("Total generated tokens", fmt::format("{}", r.output_tokens));
  line("Request throughput (req/s)", fmt::format("{:.2f}", per_second(r.num_completed, r.seconds)));
  line("Output token throughput (tok/s)", fmt::format("{:.2f}", per_second(r.output_tokens, r.seconds)));
  line("Total token throughput (tok/s)",
       fmt::format("{:.2f}", per_second(r.input_tokens + r.output_tokens, r.seconds)));
  text += fmt::format("\n{:<24}{:>10}{:>10}{:>10}\n", "ms", "mean", "p50", "p99");
  const std::pair<const char*, const LatencySummary*> summaries[] = {{"TTFT, to first token", &r.ttft},
                                                                     {"TPOT, per output token", &r.tpot},
                                                                     {"ITL, between tokens", &r.itl},
                                                                     {"E2E, whole request", &r.e2e}};
  for (const auto& [name, s] : summaries) {
    text += fmt::format("{:<24}{:>10.2f}{:>10.2f}{:>10.2f}\n", name, 1e3 * s->mean, 1e3 * s->median, 1e3 * s->p99);
  }
  const PhaseCost all = r.profile.total();
  const double step_s = std::max(r.step_seconds, 1e-9);
  text += fmt::format("\n{} steps of {:.2f} ms: {:.1f} GB/s, {:.1f} GFLOP/s; planning {:.1f} us a step\n", r.num_steps,
                      1e3 * step_s / static_cast<double>(std::max<int64_t>(1, r.num_steps)),
                      1e-9 * (all.weight_bytes + all.kv_bytes) / step_s, 1e-9 * all.flops / step_s,
                      1e6 * r.planning_seconds / static_cast<double>(std::max<int64_t>(1, r.num_steps)));
  text += "time of steps:";
  for (size_t i = 0; i < kNumLosses; ++i) {
    if (i != kBarriersLoss) text += fmt::format(" {} {:.1f} %", kLossNames[i], 100 * r.shares[i]);
  }
  return text + "\n";
}

}  // namespace hadal
