#include "eval/divergence.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/progress.h"
#include "eval/window_runner.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

class LayerSums {
 public:
  explicit LayerSums(int64_t num_layers)
      : signal_(static_cast<size_t>(num_layers)), noise_(static_cast<size_t>(num_layers)) {}

  void add(size_t layer, const std::vector<float>& reference, const std::vector<float>& profile) {
    HADAL_CHECK(reference.size() == profile.size());
    double signal = 0, noise = 0;
    for (size_t i = 0; i < reference.size(); ++i) {
      const double error = static_cast<double>(reference[i]) - profile[i];
      signal += static_cast<double>(reference[i]) * reference[i];
      noise += error * error;
    }
    signal_[layer] += signal;
    noise_[layer] += noise;
  }

  std::vector<LayerError> errors() const {
    std::vector<LayerError> errors;
    for (size_t i = 0; i < signal_.size(); ++i) {
      const double ratio = noise_[i] > 0 ? signal_[i] / noise_[i] : std::numeric_limits<double>::infinity();
      errors.push_back({.layer = static_cast<int64_t>(i), .sqnr_db = 10 * std::log10(ratio)});
    }
    return errors;
  }

 private:
  std::vector<double> signal_, noise_;
};

// One model over the windows; step() returns copies of what it gave.
class RecordedRun {
 public:
  static Expected<std::unique_ptr<RecordedRun>> create(const ModelFactory& factory, const DivergenceShape& shape,
                                                       std::span<const TokenWindow> windows) {
    std::unique_ptr<RecordedRun> run(new RecordedRun);
    run->values_.residuals.resize(static_cast<size_t>(shape.num_layers));
    HADAL_ASSIGN_OR_RETURN(std::unique_ptr<ForwardModel> model,
                           factory([target = run.get()](std::string_view name, int64_t layer, const TensorView& view) {
                             if (name == "residual") target->keep_residual(static_cast<size_t>(layer), view);
                           }));
    auto runner = WindowRunner::create(std::move(model), windows);
    if (!runner) return forward_error(std::move(runner));
    run->runner_ = std::make_unique<WindowRunner>(std::move(*runner));
    return run;
  }

  bool done() const { return runner_->done(); }
  Expected<StepValues> step() {
    HADAL_RETURN_IF_ERROR(runner_->step());
    const float* logits = runner_->logits(0);
    values_.logits.assign(logits, logits + runner_->rows().size() * static_cast<size_t>(runner_->vocab_size()));
    return std::exchange(values_, {.residuals = std::vector<std::vector<float>>(values_.residuals.size())});
  }
  const WindowRunner& runner() const { return *runner_; }

 private:
  RecordedRun() = default;
  void keep_residual(size_t layer, const TensorView& view) {
    std::vector<float>& to = values_.residuals.at(layer);
    const std::span<const float> elements = view.elements<float>();
    to.assign(elements.begin(), elements.end());
  }

  std::unique_ptr<WindowRunner> runner_;
  StepValues values_;
};

class Comparison {
 public:
  explicit Comparison(const DivergenceShape& shape) : vocab_size_(shape.vocab_size), layers_(shape.num_layers) {}

  Status add_step(const StepValues& reference, const StepValues& profile, std::span<const ScoredRow> rows) {
    for (size_t layer = 0; layer < reference.residuals.size(); ++layer) {
      layers_.add(layer, reference.residuals[layer], profile.residuals[layer]);
    }
    for (size_t row = 0; row < rows.size(); ++row) {
      const size_t at = row * static_cast<size_t>(vocab_size_);
      HADAL_RETURN_IF_ERROR(add_row(reference.logits.data() + at, profile.logits.data() + at, rows[row]));
    }
    return {};
  }

  DivergenceReport report() const {
    const auto n = static_cast<double>(report_.num_tokens);
    DivergenceReport report = report_;
    report.mean_kl = sum_ / n;
    report.kl_stderr =
        n > 1 ? std::sqrt(std::max(0.0, (sum_of_squares_ - sum_ * report.mean_kl) / (n - 1)) / n) : std::nan("");
    report.reference_nll /= n;
    report.profile_nll /= n;
    report.layers = layers_.errors();
    return report;
  }
  int64_t num_tokens() const { return report_.num_tokens; }

 private:
  Status add_row(const float* reference, const float* profile, const ScoredRow& row) {
    const RowDivergence result = row_divergence(reference, profile, vocab_size_);
    if (!std::isfinite(result.kl)) return make_error(ErrorCode::kInternal, "a model gave a logit that is no number");
    if (result.kl > report_.max_kl || report_.num_tokens == 0) {
      report_.max_kl = result.kl;
      report_.max_kl_window = row.window;
      report_.max_kl_position = row.position;
    }
    ++report_.num_tokens;
    report_.num_same_top += result.same_top ? 1 : 0;
    report_.reference_nll += negative_log_likelihood(reference, vocab_size_, row.token_id);
    report_.profile_nll += negative_log_likelihood(profile, vocab_size_, row.token_id);
    sum_ += result.kl;
    sum_of_squares_ += result.kl * result.kl;
    return {};
  }

  const int64_t vocab_size_;
  LayerSums layers_;
  DivergenceReport report_;
  double sum_ = 0, sum_of_squares_ = 0;
};

Status check_memory(const DivergenceShape& shape, int64_t num_tokens, uint64_t limit_bytes) {
  constexpr double kGiB = 1 << 30;
  const uint64_t needed = recording_bytes(shape, num_tokens);
  if (needed <= limit_bytes) return {};
  return make_error(ErrorCode::kResourceExhausted,
                    "keeping the reference's logits and residual streams of {} tokens takes {} x ({} logits + {} "
                    "layers x {}) x 4 bytes "
                    "= {:.2f} GiB, {:.2f} GiB may be used: give --max-tokens {} or less",
                    num_tokens, num_tokens, shape.vocab_size, shape.num_layers, shape.hidden_size,
                    static_cast<double>(needed) / kGiB, static_cast<double>(limit_bytes) / kGiB,
                    limit_bytes / recording_bytes(shape, 1));
}

Expected<uint64_t> tokens_to_score(const std::vector<TokenWindow>& windows) {
  const int64_t count = count_scored_tokens(windows);
  if (count > 0) return static_cast<uint64_t>(count);
  return make_error(ErrorCode::kInvalidArgument, "no token to score: documents need two tokens");
}

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

}  // namespace

uint64_t recording_bytes(const DivergenceShape& shape, int64_t num_tokens) {
  return static_cast<uint64_t>(num_tokens * (shape.vocab_size + shape.num_layers * shape.hidden_size)) * sizeof(float);
}

Expected<ReferenceRecording> record_reference(const ModelFactory& reference, const DivergenceShape& shape,
                                              std::vector<TokenWindow> windows, uint64_t memory_limit_bytes) {
  ReferenceRecording recording = {.shape = shape, .windows = std::move(windows)};
  HADAL_ASSIGN_OR_RETURN(const uint64_t total, tokens_to_score(recording.windows));
  HADAL_RETURN_IF_ERROR(check_memory(shape, count_tokens(recording.windows), memory_limit_bytes));
  HADAL_ASSIGN_OR_RETURN(const auto run, RecordedRun::create(reference, shape, recording.windows));
  ProgressBar bar("reference", "tok");
  uint64_t num_done = 0;
  while (!run->done()) {
    HADAL_ASSIGN_OR_RETURN(StepValues values, run->step());
    recording.steps.push_back(std::move(values));
    bar.update(num_done += run->runner().rows().size(), total);
  }
  return recording;
}

Expected<DivergenceReport> measure_divergence(const ReferenceRecording& reference, const ModelFactory& profile) {
  const auto begin = Clock::now();
  Comparison comparison(reference.shape);
  HADAL_ASSIGN_OR_RETURN(const uint64_t total, tokens_to_score(reference.windows));
  HADAL_ASSIGN_OR_RETURN(const auto run, RecordedRun::create(profile, reference.shape, reference.windows));
  ProgressBar bar("comparing", "tok");
  for (size_t step = 0; !run->done(); ++step) {
    HADAL_ASSIGN_OR_RETURN(const StepValues found, run->step());
    HADAL_RETURN_IF_ERROR(comparison.add_step(reference.steps.at(step), found, run->runner().rows()));
    bar.update(static_cast<uint64_t>(comparison.num_tokens()), total);
  }
  DivergenceReport report = comparison.report();
  report.seconds = seconds_since(begin);
  return report;
}

Expected<DivergenceReport> measure_divergence(const ModelFactory& reference, const ModelFactory& profile,
                                              const DivergenceShape& shape, const std::vector<TokenWindow>& windows) {
  const auto begin = Clock::now();
  Comparison comparison(shape);
  HADAL_ASSIGN_OR_RETURN(const uint64_t total, tokens_to_score(windows));
  HADAL_ASSIGN_OR_RETURN(const auto expected, RecordedRun::create(reference, shape, windows));
  HADAL_ASSIGN_OR_RETURN(const auto found, RecordedRun::create(profile, shape, windows));
  ProgressBar bar("comparing", "tok");
  while (!expected->done()) {
    HADAL_ASSIGN_OR_RETURN(const StepValues theirs, expected->step());
    HADAL_ASSIGN_OR_RETURN(const StepValues ours, found->step());
    HADAL_RETURN_IF_ERROR(comparison.add_step(theirs, ours, found->runner().rows()));
    bar.update(static_cast<uint64_t>(comparison.num_tokens()), total);
  }
  DivergenceReport report = comparison.report();
  report.seconds = seconds_since(begin);
  return report;
}

RowDivergence row_divergence(const float* reference, const float* profile, int64_t vocab_size) {
  const float* top_p = std::max_element(reference, reference + vocab_size);
  const float* top_q = std::max_element(profile, profile + vocab_size);
  double sum_p = 0, sum_q = 0, weighted = 0;  // weighted: sum of exp(p - top_p) * (p - top_p - q + top_q)
  for (int64_t i = 0; i < vocab_size; ++i) {
    const double p = static_cast<double>(reference[i]) - *top_p, q = static_cast<double>(profile[i]) - *top_q;
    const double exp_p = std::exp(p);
    sum_p += exp_p;
    sum_q += std::exp(q);
    weighted += exp_p * (p - q);
  }
  // Rounding may leave a tiny negative number; a divergence is none.
  const double kl = weighted / sum_p - std::log(sum_p) + std::log(sum_q);
  return {.kl = kl < 0 ? 0 : kl, .same_top = top_p - reference == top_q - profile};
}

std::string divergence_text(const DivergenceReport& r) {
  std::string text = fmt::format(
      "KL(reference || profile) {:.3e} +- {:.1e} nats a token, largest {:.3e} (window {}, token {})\n"
      "top-1 agreement {:.2f} % of {} tokens; perplexity {:.4f}, reference {:.4f}\n",
      r.mean_kl, r.kl_stderr, r.max_kl, r.max_kl_window, r.max_kl_position, 100 * r.top1_agreement(), r.num_tokens,
      std::exp(r.profile_nll), std::exp(r.reference_nll));
  text += "residual stream behind layer, SQNR in dB:";
  for (const LayerError& layer : r.layers) text += fmt::format(" {}:{:.1f}", layer.layer, layer.sqnr_db);
  if (!r.weights.empty()) {
    text += fmt::format("\nweights changed: {} matrices, worst SQNR in dB:", r.weights.size());
    for (size_t i = 0; i < std::min<size_t>(r.weights.size(), 5); ++i) {
      text += fmt::format(" {}:{:.1f}", r.weights[i].name, r.weights[i].sqnr_db);
    }
  }
  return text + fmt::format("\n{:.1f} s\n", r.seconds);
}

Json divergence_json(const DivergenceReport& r) {
  Json layers = Json::array();
  for (const LayerError& layer : r.layers) layers.push_back({{"layer", layer.layer}, {"sqnr_db", layer.sqnr_db}});
  constexpr size_t kMaxWeights = 1000;
  Json weights = Json::array();
  for (size_t i = 0; i < std::min(r.weights.size(), kMaxWeights); ++i) {
    weights.push_back({{"name", r.weights[i].name}, {"sqnr_db", r.weights[i].sqnr_db}, {"gain", r.weights[i].gain}});
  }
  return {{"task", "kl"},
          {"tokens", r.num_tokens},
          {"mean_kl", r.mean_kl},
          {"kl_stderr", r.kl_stderr},
          {"max_kl", r.max_kl},
          {"max_kl_window", r.max_kl_window},
          {"max_kl_position", r.max_kl_position},
          {"top1_agreement", r.top1_agreement()},
          {"perplexity", std::exp(r.profile_nll)},
          {"reference_perplexity", std::exp(r.reference_nll)},
          {"layers", std::move(layers)},
          {"changed_weights", r.weights.size()},
          {"weights", std::move(weights)},
          {"seconds", r.seconds}};
}

}  // namespace hadal
