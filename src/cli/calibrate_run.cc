#include "cli/calibrate_run.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace hadal {

CalibrationRunner::CalibrationRunner(std::unique_ptr<ForwardModel> model, const CalibrationSizes& sizes)
    : model_(std::move(model)), sizes_(sizes) {
  block_table_.resize(static_cast<size_t>(sizes.batch * sizes.blocks_per_prompt()));
  std::iota(block_table_.begin(), block_table_.end(), 0);
  logits_.resize(static_cast<size_t>(sizes.batch * model_->vocab_size()));
}

Expected<CalibrationRunner> CalibrationRunner::create(std::unique_ptr<ForwardModel> model,
                                                      const CalibrationSizes& sizes) {
  HADAL_RETURN_IF_ERROR(
      model->allocate_kv(sizes.batch * sizes.blocks_per_prompt(), CalibrationSizes::kBlockSize, sizes.max_tokens));
  return CalibrationRunner(std::move(model), sizes);
}

std::span<const int32_t> CalibrationRunner::table_of(size_t slot, int64_t num_positions) const {
  const auto first = static_cast<int64_t>(slot) * sizes_.blocks_per_prompt();
  const int64_t count = (num_positions + CalibrationSizes::kBlockSize - 1) / CalibrationSizes::kBlockSize;
  return std::span(block_table_).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
}

// The largest logit's lowest id.
Status CalibrationRunner::choose(std::span<const float> logits, size_t slot) {
  const auto valid = logits.first(static_cast<size_t>(sizes_.num_valid_tokens));
  const auto best = std::max_element(valid.begin(), valid.end());
  if (!std::isfinite(*best) || std::any_of(valid.begin(), valid.end(), [](float x) { return std::isnan(x); })) {
    return make_error(ErrorCode::kInternal,
                      "the model's logits are no numbers: its weights or their scales are damaged");
  }
  next_ids_[slot] = static_cast<int32_t>(best - valid.begin());
  return {};
}

Status CalibrationRunner::prefill(size_t slot, std::span<const int32_t> prompt, const Progress& progress) {
  const auto length = static_cast<int64_t>(prompt.size());
  for (int64_t first = 0; first < length;) {
    const int64_t count = std::min(sizes_.max_tokens, length - first);
    const SequenceSpan sequence = {.num_tokens = count,
                                   .first_position = first,
                                   .expanded_end = length,
                                   .block_table = table_of(slot, first + count)};
    const auto last_row = static_cast<int32_t>(count - 1);
    const bool is_last = first + count == length;
    const StepInput input = {.token_ids = prompt.subspan(static_cast<size_t>(first), static_cast<size_t>(count)),
                             .sequences = {&sequence, 1},
                             .logit_rows = {&last_row, is_last ? size_t{1} : size_t{0}}};
    HADAL_RETURN_IF_ERROR(model_->forward(input, logits_.data()));
    progress(count);
    first += count;
  }
  return choose(std::span(logits_).first(static_cast<size_t>(model_->vocab_size())), slot);
}

// One token of every prompt at work, at the position that they share.
Status CalibrationRunner::decode(int64_t position, const Progress& progress) {
  const size_t count = next_ids_.size();
  std::vector<SequenceSpan> sequences;
  std::vector<int32_t> rows(count);
  std::iota(rows.begin(), rows.end(), 0);
  for (size_t slot = 0; slot < count; ++slot) {
    sequences.push_back({.token_begin = static_cast<int64_t>(slot),
                         .num_tokens = 1,
                         .first_position = position,
                         .expanded_end = sizes_.prompt_len,
                         .block_table = table_of(slot, position + 1)});
  }
  const std::vector<int32_t> ids = next_ids_;
  HADAL_RETURN_IF_ERROR(
      model_->forward({.token_ids = ids, .sequences = sequences, .logit_rows = rows}, logits_.data()));
  const auto vocab = static_cast<size_t>(model_->vocab_size());
  for (size_t slot = 0; slot < count; ++slot) {
    HADAL_RETURN_IF_ERROR(choose(std::span(logits_).subspan(slot * vocab, vocab), slot));
  }
  progress(static_cast<int64_t>(count));
  return {};
}

Status CalibrationRunner::run(std::span<const std::vector<int32_t>> prompts, const Progress& progress) {
  next_ids_.assign(prompts.size(), 0);
  for (size_t slot = 0; slot < prompts.size(); ++slot) {
    HADAL_RETURN_IF_ERROR(prefill(slot, prompts[slot], progress));
  }
  for (int64_t i = 0; i + 1 < sizes_.osl; ++i) {
    HADAL_RETURN_IF_ERROR(decode(sizes_.prompt_len + i, progress));
  }
  return {};
}

}  // namespace hadal
