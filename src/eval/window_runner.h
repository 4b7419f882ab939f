// Runs windows of tokens through a model, many at once, and shows the logits of every scored token. Steps are laid out
// by the windows and limits alone: two models with the same ones see the same rows in the same order.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "eval/documents.h"
#include "model/forward_model.h"

namespace hadal {

struct RunnerLimits {
  int64_t max_step_tokens = 512;
  int64_t max_logit_rows = 0;  // of a step; 0: what 64 MiB hold, at most max_step_tokens
};

// A row of logits and what it predicts.
struct ScoredRow {
  int64_t window = 0;
  int64_t position = 0;  // in the window, of the predicted token
  int32_t token_id = 0;  // that token
};

// Single-owner.
class WindowRunner {
 public:
  // Allocates the model's cache. `windows` must outlive the runner. Errors: as ForwardModel::allocate_kv().
  static Expected<WindowRunner> create(std::unique_ptr<ForwardModel> model, std::span<const TokenWindow> windows,
                                       const RunnerLimits& limits = {});

  bool done() const { return next_window_ == windows_.size() && running_.empty(); }
  // Runs the next step. Requires !done().
  Status step();

  // Of the last step; valid until the next one.
  int64_t num_step_tokens() const { return static_cast<int64_t>(token_ids_.size()); }
  std::span<const ScoredRow> rows() const { return rows_; }
  const float* logits(size_t row) const { return logits_.data() + row * static_cast<size_t>(vocab_size()); }

  int64_t vocab_size() const { return model_->vocab_size(); }

 private:
  struct Running {
    size_t window = 0;
    int64_t num_done = 0;  // tokens
    std::vector<int32_t> blocks;
  };

  WindowRunner(std::unique_ptr<ForwardModel> model, std::span<const TokenWindow> windows)
      : model_(std::move(model)), windows_(windows) {}
  void plan_step();
  bool admit();
  void add_chunk(Running& running);

  std::unique_ptr<ForwardModel> model_;
  std::span<const TokenWindow> windows_;
  RunnerLimits limits_;
  size_t next_window_ = 0;
  std::vector<Running> running_;  // all but the first are new in this step
  std::vector<int32_t> free_blocks_;

  std::vector<int32_t> token_ids_, logit_rows_;
  std::vector<SequenceSpan> spans_;
  std::vector<ScoredRow> rows_;
  std::vector<float> logits_;
};

// -log softmax(logits)[token_id] in nats, summed in double.
double negative_log_likelihood(const float* logits, int64_t vocab_size, int32_t token_id);

}  // namespace hadal
