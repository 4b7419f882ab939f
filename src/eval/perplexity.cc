#include "eval/perplexity.h"

#include <chrono>
#include <cmath>
#include <numbers>
#include <utility>

#include "base/progress.h"
#include "eval/window_runner.h"

namespace hadal {

double PerplexityReport::perplexity() const { return std::exp(nll); }
double PerplexityReport::perplexity_stderr() const { return perplexity() * nll_stderr; }
double PerplexityReport::bits_per_byte() const {
  return nll * static_cast<double>(num_tokens) / std::numbers::ln2 / static_cast<double>(num_bytes);
}

Expected<PerplexityReport> measure_perplexity(std::unique_ptr<ForwardModel> model,
                                              const std::vector<TokenWindow>& windows, int64_t num_bytes) {
  const auto begin = std::chrono::steady_clock::now();
  PerplexityReport report = {.num_windows = static_cast<int64_t>(windows.size()), .num_bytes = num_bytes};
  const int64_t total = count_scored_tokens(windows);
  if (!windows.empty()) report.num_documents = windows.back().document + 1;
  if (total == 0) return make_error(ErrorCode::kInvalidArgument, "no token to score: documents need two tokens");
  HADAL_ASSIGN_OR_RETURN(WindowRunner runner, WindowRunner::create(std::move(model), windows));
  ProgressBar bar("perplexity", "tok");
  double sum = 0, sum_of_squares = 0;
  while (!runner.done()) {
    HADAL_RETURN_IF_ERROR(runner.step());
    for (size_t row = 0; row < runner.rows().size(); ++row) {
      const double nll = negative_log_likelihood(runner.logits(row), runner.vocab_size(), runner.rows()[row].token_id);
      if (!std::isfinite(nll)) return make_error(ErrorCode::kInternal, "the model gave a logit that is no number");
      sum += nll;
      sum_of_squares += nll * nll;
      ++report.num_tokens;
    }
    bar.update(static_cast<uint64_t>(report.num_tokens), static_cast<uint64_t>(total));
  }
  const auto n = static_cast<double>(report.num_tokens);
  report.nll = sum / n;
  const double variance = n > 1 ? std::max(0.0, (sum_of_squares - sum * report.nll) / (n - 1)) : std::nan("");
  report.nll_stderr = std::sqrt(variance / n);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return report;
}

std::string perplexity_text(const PerplexityReport& r) {
  return fmt::format(
      "perplexity {:.4f} +- {:.4f} over {} tokens of {} documents ({} windows)\n"
      "{:.4f} nats a token, {:.4f} bits a byte; {:.1f} s, {:.0f} tokens/s\n",
      r.perplexity(), r.perplexity_stderr(), r.num_tokens, r.num_documents, r.num_windows, r.nll, r.bits_per_byte(),
      r.seconds, static_cast<double>(r.num_tokens) / std::max(r.seconds, 1e-9));
}

Json perplexity_json(const PerplexityReport& r) {
  return {{"task", "perplexity"},
          {"documents", r.num_documents},
          {"windows", r.num_windows},
          {"tokens", r.num_tokens},
          {"bytes", r.num_bytes},
          {"perplexity", r.perplexity()},
          {"perplexity_stderr", r.perplexity_stderr()},
          {"nats_per_token", r.nll},
          {"nats_per_token_stderr", r.nll_stderr},
          {"bits_per_byte", r.bits_per_byte()},
          {"seconds", r.seconds}};
}

}  // namespace hadal
