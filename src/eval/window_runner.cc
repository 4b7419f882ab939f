#include "eval/window_runner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace hadal {
namespace {

constexpr int64_t kBlockTokens = 64;
constexpr int64_t kTileTokens = 256;   // full tiles use the expanded form, as in serving
constexpr int64_t kSpareBlocks = 128;  // beside those of the longest window: short windows run together
constexpr int64_t kMaxLogitBytes = int64_t{64} << 20;

int64_t blocks_of(int64_t num_tokens) { return (num_tokens + kBlockTokens - 1) / kBlockTokens; }

}  // namespace

Expected<WindowRunner> WindowRunner::create(std::unique_ptr<ForwardModel> model, std::span<const TokenWindow> windows,
                                            const RunnerLimits& limits) {
  WindowRunner runner(std::move(model), windows);
  runner.limits_ = limits;
  int64_t longest = 1;
  for (const TokenWindow& window : windows) longest = std::max(longest, window.num_tokens());
  if (longest > runner.model_->max_position_embeddings()) {
    return make_error(ErrorCode::kInvalidArgument, "windows of {} tokens: the model's context is {}", longest,
                      runner.model_->max_position_embeddings());
  }
  int64_t& max_rows = runner.limits_.max_logit_rows;
  if (max_rows == 0) max_rows = kMaxLogitBytes / static_cast<int64_t>(sizeof(float)) / runner.vocab_size();
  max_rows = std::clamp<int64_t>(max_rows, 1, limits.max_step_tokens);
  const int64_t num_blocks = blocks_of(longest) + kSpareBlocks;
  HADAL_RETURN_IF_ERROR(runner.model_->allocate_kv(num_blocks, kBlockTokens, limits.max_step_tokens));
  for (int64_t block = num_blocks; block-- > 0;) runner.free_blocks_.push_back(static_cast<int32_t>(block));
  runner.logits_.resize(static_cast<size_t>(max_rows * runner.vocab_size()));
  return runner;
}

Status WindowRunner::step() {
  HADAL_CHECK(!done());
  plan_step();
  HADAL_RETURN_IF_ERROR(
      model_->forward({.token_ids = token_ids_, .sequences = spans_, .logit_rows = logit_rows_}, logits_.data()));
  std::erase_if(running_, [this](Running& running) {
    if (running.num_done < windows_[running.window].num_tokens()) return false;
    free_blocks_.insert(free_blocks_.end(), running.blocks.rbegin(), running.blocks.rend());
    return true;
  });
  return {};
}

void WindowRunner::plan_step() {
  token_ids_.clear();
  logit_rows_.clear();
  spans_.clear();
  rows_.clear();
  if (!running_.empty()) add_chunk(running_.front());
  while (num_step_tokens() < limits_.max_step_tokens && static_cast<int64_t>(rows_.size()) < limits_.max_logit_rows) {
    if (!admit()) break;
    add_chunk(running_.back());
  }
  // Block tables point into running_, which no longer grows.
  for (size_t i = 0; i < spans_.size(); ++i) {
    const auto num_blocks = static_cast<size_t>(blocks_of(spans_[i].first_position + spans_[i].num_tokens));
    spans_[i].block_table = std::span(running_[i].blocks).first(num_blocks);
  }
}

// The next window, if its blocks are free.
bool WindowRunner::admit() {
  if (next_window_ == windows_.size()) return false;
  const auto num_blocks = static_cast<size_t>(blocks_of(windows_[next_window_].num_tokens()));
  if (num_blocks > free_blocks_.size()) return false;
  Running running = {.window = next_window_++};
  running.blocks.assign(free_blocks_.end() - static_cast<ptrdiff_t>(num_blocks), free_blocks_.end());
  free_blocks_.resize(free_blocks_.size() - num_blocks);
  running_.push_back(std::move(running));
  return true;
}

// As many of its tokens as the step still takes.
void WindowRunner::add_chunk(Running& running) {
  const TokenWindow& window = windows_[running.window];
  SequenceSpan span = {.token_begin = num_step_tokens(),
                       .first_position = running.num_done,
                       .expanded_end = window.num_tokens() / kTileTokens * kTileTokens};
  while (running.num_done < window.num_tokens() && num_step_tokens() < limits_.max_step_tokens) {
    const int64_t predicted = running.num_done + 1;
    const bool is_scored = predicted >= window.first_scored && predicted < window.num_tokens();
    if (is_scored && static_cast<int64_t>(rows_.size()) == limits_.max_logit_rows) break;
    if (is_scored) {
      logit_rows_.push_back(static_cast<int32_t>(num_step_tokens()));
      rows_.push_back({.window = static_cast<int64_t>(running.window),
                       .position = predicted,
                       .token_id = window.ids[static_cast<size_t>(predicted)]});
    }
    token_ids_.push_back(window.ids[static_cast<size_t>(running.num_done++)]);
    ++span.num_tokens;
  }
  spans_.push_back(span);
}

double negative_log_likelihood(const float* logits, int64_t vocab_size, int32_t token_id) {
  const float largest = *std::max_element(logits, logits + vocab_size);
  double sum = 0;
  for (int64_t i = 0; i < vocab_size; ++i) sum += std::exp(static_cast<double>(logits[i]) - largest);
  return std::log(sum) - (static_cast<double>(logits[token_id]) - largest);
}

}  // namespace hadal
