// The prefill step that runs in slices between decode steps when EngineOptions::max_itl_ms asks for it: its batch, how
// far it is, and how much of it to run next (latency_policy.h).
//
// While it is open its members do not advance and appear in no other plan. One that ends leaves its blocks here, since
// the step goes on writing them; they are returned when the step closes. Single-owner: the engine thread.
#pragma once

#include <functional>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/kv_blocks.h"
#include "engine/latency_policy.h"
#include "engine/step_batch.h"

namespace hadal {

using EngineClock = std::function<double()>;  // seconds since some moment

class OpenPrefill {
 public:
  // All outlive it.
  OpenPrefill(const EngineOptions& options, ForwardModel& model, KvBlocks& blocks, const EngineClock& clock);

  bool is_open() const { return is_open_; }
  StepBatch& batch() { return batch_; }  // to be filled before open()
  const StepBatch& batch() const { return batch_; }
  int64_t max_tokens() const { return size_.tokens; }  // of the next step
  const std::vector<SequenceBlocks>& held() const { return held_; }

  // Opens a step over batch(), which is not empty.
  void open();

  // Runs a slice. decode_s: what the engine's step took without it. `logits` has room for the rows of the batch.
  // True: the step is finished. Errors: as ForwardModel::open_step() and run_pieces(). Both are followed by close().
  Expected<bool> run_slice(double decode_s, float* logits);
  // Runs all that is left. True, or errors as above.
  Expected<bool> run_rest(float* logits);

  // Returns held blocks and leaves the members, who may advance again; the batch stays until the next clear().
  void close();
  // Gives up what was run: nothing of it is committed. Nothing when no step is open.
  void drop();
  // A member ends: its blocks are released, now or when the step closes. A step without members is dropped.
  void release(Sequence* sequence);

 private:
  Status begin();
  Expected<bool> run_measured(int64_t count, float* logits);
  void adapt_size(double budget_s);

  const EngineOptions& options_;
  ForwardModel& model_;
  KvBlocks& blocks_;
  const EngineClock& clock_;

  LatencyEstimates estimates_;
  ChunkSize size_;

  bool is_open_ = false;
  StepBatch batch_;
  std::vector<SequenceSpan> spans_;
  std::vector<SequenceBlocks> held_;
  int64_t next_piece_ = 0, num_pieces_ = 0;
};

}  // namespace hadal
