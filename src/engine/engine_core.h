// The engine without its thread: queues, one step at a time, results through sinks. engine.cc drives it; tests may too.
//
// Single-owner: whoever calls step(). Sinks are called from within the functions below and must not call them back.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "engine/invariants.h"
#include "engine/kv_blocks.h"
#include "engine/open_prefill.h"
#include "engine/planner.h"
#include "engine/sampler.h"
#include "engine/sequence.h"

namespace hadal {

class EngineCore {
 public:
  // Called when a request ends, before its last output: its id may be used again from then on.
  using EndObserver = std::function<void(const std::string& request_id)>;

  // Requires check_options() passed and the model's cache allocated, for options.max_itl_ms its pieces prepared.
  // `clock` measures what slices take; empty: the steady clock.
  EngineCore(std::unique_ptr<ForwardModel> model, const EngineOptions& options, StepObserver observer = {},
             EndObserver end_observer = {}, EngineClock clock = {});

  // Requires check_request() passed and the id not in use. `submitted`: when it came. Cost: O(prompt + log(waiting)).
  void add(Request request, OutputSink sink,
           std::chrono::steady_clock::time_point submitted = std::chrono::steady_clock::now());
  // Ends a request; its blocks are free on return, or with the end of the open step that others share with it. Unknown
  // ids are ignored.
  void abort(const std::string& request_id);
  void abort_all();
  // Ends every request with kError.
  void fail_all(const std::string& error);

  bool has_work() const { return !sequences_.empty(); }
  // plan -> reserve -> run -> sample -> commit. A failed run fails the requests of its plan, unless ranks were lost.
  // With a slice of the open prefill step, where there is one, behind the commit of the decodes.
  void step();
  // Ranks were lost, in a step or between two: no step may run before recover().
  bool lost_ranks() const { return lost_ranks_ || !model_->trouble().empty(); }
  // Requests that have sent tokens end with kError, the others wait again in their old order; nothing stays cached.
  // Then brings the ranks together, which may take as long as loading. Errors: as ForwardModel::restore().
  Status recover();
  // Failed runs without a good one between.
  int64_t num_consecutive_failures() const { return num_consecutive_failures_; }

  void drop_unused_cached() { blocks_.drop_unused_cached(); }
  EngineStats stats() const;
  EngineSnapshot snapshot() const { return take_snapshot(queues_, blocks_, open_); }
  ForwardModel& model() { return *model_; }

 private:
  void plan();
  void check_plans() const;
  void want_logits(StepBatch& batch) const;
  void reserve_logits(const StepPlan& plan);
  Status run();
  void advance_open(double decode_s, StepRecord& record);
  // Commits a batch that ran, or fails its requests.
  void settle(const StepBatch& batch, const Status& ran);
  void commit(Sequence* sequence, const PlannedSequence& planned);
  Status sample(Sequence* sequence, int64_t logit_idx);  // into token_
  Status collect_prompt_logprobs(Sequence* sequence, const PlannedSequence& planned);
  void commit_token(Sequence* sequence, const TokenOutput& token);
  FinishReason finish_reason_after(const Sequence& sequence, int32_t token_id) const;
  SampleContext sample_context(const Sequence& sequence) const;
  float* logits_of(int64_t logit_idx);
  RequestOutput& new_output(Sequence* sequence);  // output_, cleared
  bool deliver(Sequence* sequence);
  // Sends a last output without tokens.
  void finish(Sequence* sequence, FinishReason reason, const std::string& error = {});
  // Removes the sequence, frees its blocks and sends output_ as its last.
  void end(Sequence* sequence);
  void check_state() const;

  EngineOptions options_;
  std::unique_ptr<ForwardModel> model_;
  StepObserver observer_;
  EndObserver end_observer_;
  KvBlocks blocks_;
  SequenceQueues queues_;
  EngineClock clock_;
  OpenPrefill open_;
  Planner planner_;
  Sampler sampler_;
  std::unordered_map<std::string, std::unique_ptr<Sequence>> sequences_;

  StepBatch batch_;
  std::vector<SequenceSpan> spans_;
  std::unique_ptr<float[]> logits_;  // f32 [logit_capacity_rows_, vocab_size]
  int64_t logit_capacity_rows_ = 0;
  TokenOutput token_;     // reused
  RequestOutput output_;  // reused while sinks leave its storage alone
  uint64_t num_added_ = 0;
  int64_t num_consecutive_failures_ = 0;
  bool lost_ranks_ = false;
  double sampling_s_ = 0;  // in this step
  EngineStats counters_;
};

}  // namespace hadal
