// The engine's view of a model: tokens and block tables in, logits out. No weights, no requests, no text.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/status.h"
#include "model/step_profile.h"

namespace hadal {

class Communicator;

// Consecutive tokens of one sequence inside a step.
struct SequenceSpan {
  int64_t token_begin = 0;     // first row in StepInput::token_ids
  int64_t num_tokens = 0;      // >= 1
  int64_t first_position = 0;  // absolute position of that row; earlier positions are in the cache already
  // Tokens at positions below this use the expanded attention form, the others the absorbed one (design.md 4 d): the
  // number of prompt tokens in full tiles, fixed when the request is first admitted.
  int64_t expanded_end = 0;
  // [ceil((first_position + num_tokens) / block_size)] block ids. Rows of this step are written through it.
  std::span<const int32_t> block_table;
};

// What is wanted of a row of logits. Less than all lets other ranks send less.
struct LogitWant {
  // 0: the whole row. Else ids from it on are not for picking: of them only their part in the sum is wanted, of the ids
  // below it what follows.
  int32_t num_valid = 0;
  int32_t num_best = 0;  // so many of the highest, and all that equal the last of them
  float depth = 0;       // > 0: also all that lie at most so far below the highest
  float exp_scale = 0;   // > 0: sums of exp((logit - maximum) * exp_scale)
  // > 0: also all that select_likely() looks at for so much of the mass; exp_scale is 1 / temperature.
  float nucleus = 0, temperature = 0;
};

// A row of which no more than what was wanted is known. By blocks of kLogitBlock ids, counted from 0 up to num_valid,
// and counted again from there: what LogitBlocks::adopt() takes. Logits in blocks without known ones are undefined.
struct PartialLogits {
  std::span<const float> maxima, sums, known;       // of the valid ids
  std::span<const float> other_maxima, other_sums;  // of those from num_valid on

  bool is_whole() const { return maxima.empty(); }
};

struct StepInput {
  std::span<const int32_t> token_ids;
  std::span<const SequenceSpan> sequences;  // cover token_ids in order, no gaps
  std::span<const int32_t> logit_rows;      // ascending rows of token_ids whose logits are wanted; may be empty
  std::span<const LogitWant> logit_wants;   // [logit_rows.size()], or empty: whole rows
};

// What a piece of a step is about. Pieces of one kind take about equal time per unit of work.
enum class PieceKind { kProjections, kExpandedAttention, kAbsorbedAttention, kMlp, kHead };
inline constexpr size_t kNumPieceKinds = 5;

// A part of a step that runs without a break.
struct StepPiece {
  PieceKind kind = PieceKind::kProjections;
  double work = 0;  // > 0; comparable with work of the same kind only
};

// Single-owner: the engine thread. Steps use the model's own thread pool inside.
class ForwardModel {
 public:
  virtual ~ForwardModel() = default;

  virtual int64_t vocab_size() const = 0;
  virtual int64_t max_position_embeddings() const = 0;
  // Bytes that one cached token needs over all layers.
  virtual int64_t kv_bytes_per_token() const = 0;

  // Reserves the latent cache: num_blocks blocks of block_size tokens in every layer. Once, before forward().
  // Errors: kResourceExhausted.
  virtual Status allocate_kv(int64_t num_blocks, int64_t block_size, int64_t max_tokens_per_step) = 0;

  // Runs one step: writes the rows' keys to the cache and logits f32 [logit_rows.size(), vocab_size()].
  // Of several ranks only rank 0 gets logits; the others may give null. Rows are whole where partial_logits() says so.
  // A token's bits depend on its sequence's tokens and its position alone, not on what else is in the step.
  // Errors: kInternal, kUnavailable (a rank was lost); the cache rows of this step are then undefined.
  virtual Status forward(const StepInput& input, float* logits) = 0;

  // What row idx of the logits that were written last holds, where it is not the whole row. Views, until the next
  // logits are written.
  virtual PartialLogits partial_logits(int64_t idx) const = 0;

  // A step in pieces: steps of other sequences can run between them, and the bits are those of forward(). A model may
  // lack this. Pieces follow from the input and the number of workers alone, so ranks that are told how many to run
  // agree on what that means.
  //
  // Once, after allocate_kv(): memory for the steps that forward() runs while another one is open. Those have at most
  // so many tokens, all in the absorbed form. Errors: kUnsupported (no pieces here), kResourceExhausted.
  virtual Status prepare_pieces(int64_t max_tokens_between);
  // Opens a step; none is open. What `input` points to must stay until the step is finished or dropped. Until then the
  // step's cache rows are undefined and no other step may use the blocks they lie in. Errors: as forward().
  virtual Status open_step(const StepInput& input);
  // Of the open step, those that ran included.
  virtual int64_t num_pieces() const { return 0; }
  virtual StepPiece piece(int64_t idx) const;
  // Runs the next `count` pieces of the open step. The last piece of all writes the logits, as forward() does, and
  // finishes the step; `logits` is read by that one only. Errors: as forward(); the step is dropped.
  virtual Status run_pieces(int64_t count, float* logits);
  // Forgets the open step, if there is one.
  virtual void drop_step() {}

  // Of a model that is one of several ranks. The group that its steps sum over from now on; null: none, and steps fail
  // with kUnavailable. Between steps only; must outlive its use. All ranks run the same steps in the same order.
  virtual void set_communicator(Communicator*) {}
  // After a step failed with kUnavailable, since a rank was lost: brings all ranks together again, which may take as
  // long as loading. Then steps can run; rows of the cache are undefined. Errors: kUnavailable: for good.
  virtual Status restore();
  // Why steps cannot run until restore() is done: "rank 1 (node 0) ended: signal 9 (Killed)". Empty: they can.
  // Thread-safe.
  virtual std::string trouble() const { return {}; }
  // `wake` is called, from any thread, when trouble begins. Between steps only; empty: nobody is called any more.
  virtual void on_trouble([[maybe_unused]] std::function<void()> wake) {}
  // From any thread: a restore() that runs, or comes, fails soon.
  virtual void stop_restoring() {}

  // Sums over all steps so far; one that ran in pieces counts when it is finished.
  virtual const StepProfile& profile() const = 0;

  // Of a model that is calibrated (range_observer.h) on several ranks: raises the ranges that rank 0 has seen by those
  // of the others. Between steps. Errors: as forward().
  virtual Status gather_ranges() { return {}; }

  // For benchmarks: fills the whole cache with pseudo-random rows of unit scale, so that steps at a depth can be timed
  // without computing what precedes them.
  virtual void fill_kv(uint64_t seed) = 0;
};

inline Status ForwardModel::prepare_pieces(int64_t) {
  return make_error(ErrorCode::kUnsupported, "this model runs its steps whole only");
}
inline Status ForwardModel::open_step(const StepInput&) { return ForwardModel::prepare_pieces(0); }
inline Status ForwardModel::restore() {
  return make_error(ErrorCode::kUnavailable, "this model has no ranks that could come back");
}
inline StepPiece ForwardModel::piece(int64_t) const { return {}; }
inline Status ForwardModel::run_pieces(int64_t, float*) { return ForwardModel::prepare_pieces(0); }

}  // namespace hadal
