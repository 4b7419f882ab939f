#include "engine/open_prefill.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace hadal {

OpenPrefill::OpenPrefill(const EngineOptions& options, ForwardModel& model, KvBlocks& blocks, const EngineClock& clock)
    : options_(options), model_(model), blocks_(blocks), clock_(clock) {
  size_.tokens = std::min(options.prompt_tile_tokens, options.max_num_batched_tokens);
}

void OpenPrefill::open() {
  HADAL_CHECK(!is_open_ && !batch_.empty(), "a step is open, or has no members");
  is_open_ = true;
  next_piece_ = num_pieces_ = 0;
  for (Sequence* member : batch_.members) member->in_open_step = true;
}

// The model opens the step with the first slice: its errors come when the step can be closed.
Status OpenPrefill::begin() {
  if (num_pieces_ > 0) return {};
  HADAL_RETURN_IF_ERROR(model_.open_step(make_step_input(batch_.plan, spans_)));
  num_pieces_ = model_.num_pieces();
  return {};
}

Expected<bool> OpenPrefill::run_slice(double decode_s, float* logits) {
  HADAL_RETURN_IF_ERROR(begin());
  estimates_.decode_s.add(decode_s);
  const double budget_s = slice_budget_s(options_.max_itl_ms / 1000, estimates_.decode_s);
  const int64_t count =
      pieces_within(budget_s, estimates_, next_piece_, num_pieces_, [this](int64_t idx) { return model_.piece(idx); });
  if (next_piece_ + count == num_pieces_) adapt_size(budget_s);
  return run_measured(count, logits);
}

Expected<bool> OpenPrefill::run_rest(float* logits) {
  HADAL_RETURN_IF_ERROR(begin());
  return run_measured(num_pieces_ - next_piece_, logits);
}

void OpenPrefill::adapt_size(double budget_s) {
  if (2 * batch_.num_prefill_tokens < size_.tokens) return;  // a tail tells nothing of whole chunks
  double longest_s = 0;
  for (int64_t idx = 0; idx < num_pieces_; ++idx)
    longest_s = std::max(longest_s, estimates_.seconds(model_.piece(idx)));
  size_ = next_chunk_size(size_, longest_s, budget_s, options_.max_num_batched_tokens);
}

// Pieces of one kind that follow each other run and are timed together. True: none is left.
Expected<bool> OpenPrefill::run_measured(int64_t count, float* logits) {
  for (const int64_t end = next_piece_ + count; next_piece_ < end;) {
    const PieceKind kind = model_.piece(next_piece_).kind;
    double work = 0;
    int64_t num_alike = 0;
    for (; next_piece_ + num_alike < end; ++num_alike) {
      const StepPiece piece = model_.piece(next_piece_ + num_alike);
      if (piece.kind != kind) break;
      work += piece.work;
    }
    const double begin_s = clock_();
    HADAL_RETURN_IF_ERROR(model_.run_pieces(num_alike, logits));
    estimates_.seconds_per_work[static_cast<size_t>(kind)].add((clock_() - begin_s) / work);
    next_piece_ += num_alike;
  }
  return next_piece_ == num_pieces_;
}

void OpenPrefill::close() {
  model_.drop_step();  // unless it is finished
  is_open_ = false;
  for (Sequence* member : batch_.members) {
    if (member != nullptr) member->in_open_step = false;
  }
  for (SequenceBlocks& blocks : held_) blocks_.release(blocks);
  held_.clear();
}

void OpenPrefill::drop() {
  if (is_open_) close();
}

void OpenPrefill::release(Sequence* sequence) {
  const auto found = std::find(batch_.members.begin(), batch_.members.end(), sequence);
  HADAL_CHECK(is_open_ && found != batch_.members.end(), "the sequence is not in the open step");
  *found = nullptr;
  held_.push_back(std::move(sequence->blocks));
  sequence->blocks = {};
  const auto is_gone = [](const Sequence* member) { return member == nullptr; };
  if (std::all_of(batch_.members.begin(), batch_.members.end(), is_gone)) drop();
}

}  // namespace hadal
