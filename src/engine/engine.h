// The serving engine: takes token-id requests, batches them step by step through a ForwardModel, answers through sinks.
//
// A step is plan -> reserve blocks -> run -> sample -> commit; on failure the reservation is released and only the
// requests concerned fail. Same tokens always: a request's tokens and logprobs depend on its prompt, sampling
// parameters and seed alone (design.md section 4).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/request.h"
#include "kernels/row_math.h"
#include "model/forward_model.h"

namespace hadal {

struct EngineOptions {
  int64_t max_model_len = 0;             // prompt + generated tokens of one request
  int64_t max_num_seqs = 32;             // sequences in one step
  int64_t max_num_batched_tokens = 512;  // tokens in one step
  int64_t block_size = 64;               // tokens; divides prompt_tile_tokens
  int64_t num_blocks = 0;                // of the latent cache
  int64_t prompt_tile_tokens = 256;      // full tiles of the prompt use the expanded attention form
  int64_t max_queued_requests = 1024;    // more are refused with kResourceExhausted
  bool enable_prefix_caching = true;
  bool priority_preemption = false;     // a waiting request preempts running ones of a larger priority value
  bool prefix_cache_generated = false;  // share blocks of generated tokens too: equality then only up to rounding
  int64_t max_chunk_tokens = 0;         // prefill tokens of one sequence in a step; 0: the token budget
  // > 0: while sequences decode, prompts are computed in slices between their steps, so that a token follows the last
  // one within so many milliseconds where the machine can (latency_policy.h). 0: decodes and prefills share steps.
  double max_itl_ms = 0;
  uint64_t seed = 0;
  int64_t num_valid_tokens = 0;          // ids at or above are never sampled (rows without a token); 0: all are valid
  std::vector<int32_t> eos_token_ids;    // stop a request unless it says ignore_eos; forbidden until min_tokens
  int64_t max_prompt_logprob_rows = 64;  // prompt positions whose logits one step holds; bounds the logits buffer
  // What the sampler computes with: that of the model's kernels, so that one choice fixes a request's tokens. Null: the
  // fastest here. Must outlive the engine.
  const RowMath* row_math = nullptr;
#ifdef NDEBUG
  bool check_invariants = false;  // after every step; a violation stops the program
#else
  bool check_invariants = true;
#endif
};

// Counters since start and gauges of now, copied under the engine's lock. Names follow vLLM's metrics.
struct EngineStats {
  int64_t num_requests_running = 0;
  int64_t num_requests_waiting = 0;
  double kv_cache_usage = 0;  // used blocks / all blocks
  uint64_t num_preemptions = 0;
  uint64_t prompt_tokens = 0;  // prefilled, cache hits not counted
  uint64_t generation_tokens = 0;
  uint64_t prefix_cache_queries = 0;  // tokens looked up
  uint64_t prefix_cache_hits = 0;     // tokens found
  uint64_t num_steps = 0;
  int64_t num_free_blocks = 0;
  int64_t num_blocks = 0;
};

// Thread-safe: submit, abort, stats, healthy. Owns one engine thread, which owns all scheduler state and calls sinks.
class Engine {
 public:
  virtual ~Engine() = default;  // as stop()

  // Queues a request. Errors, with the sink never called: kInvalidArgument (empty or too long prompt, bad id, repeated
  // request_id), kResourceExhausted (queue full), kUnavailable (stopping).
  virtual Status submit(Request request, OutputSink sink) = 0;

  // Ends the request before the next step with finish_reason kAbort; its blocks are free after that step. Unknown or
  // finished ids are ignored.
  virtual void abort(const std::string& request_id) = 0;

  virtual EngineStats stats() const = 0;
  // False once the engine cannot serve any more (a step failed beyond repair) or is stopping, and while ranks are lost.
  virtual bool healthy() const = 0;
  // Why it is not, where it will be again by itself: "rank 1 (node 0) ended: signal 9 (Killed); restart 1 of 3".
  // Requests wait meanwhile. Else empty.
  virtual std::string trouble() const { return {}; }
  // Drops all cached prefixes that no running request uses.
  virtual void reset_prefix_cache() = 0;

  // Refuses new requests, aborts running ones, joins the engine thread. Idempotent.
  virtual void stop() = 0;
};

// Called on the engine thread after each step, with the step's facts. For metrics and tests; must not block.
struct StepRecord {
  double duration_s = 0;
  int64_t num_prefill_tokens = 0;  // of prefills that run in slices: in the step that finishes them
  int64_t num_decode_tokens = 0;
  int64_t num_generated_tokens = 0;  // sampled at the end of the step
  int64_t num_sequences = 0;
  int64_t num_preempted = 0;
  double planning_s = 0;
  double sampling_s = 0;
  StepProfile forward;  // of this step
};
using StepObserver = std::function<void(const StepRecord&)>;

// Errors: kInvalidArgument when the options contradict each other or the model. Allocates the model's cache.
Expected<std::unique_ptr<Engine>> make_engine(std::unique_ptr<ForwardModel> model, const EngineOptions& options,
                                              StepObserver observer = {});

}  // namespace hadal
