#include "engine/engine_core.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "engine/random.h"
#include "engine/request_check.h"

namespace hadal {
namespace {

bool contains(std::span<const int32_t> ids, int32_t id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

// Room for generated tokens made at once; longer answers grow it geometrically.
constexpr size_t kReservedTokens = 1024;

// Ranks lost while a request ran, after which it may be the reason.
constexpr int kMaxLosses = 2;

using Clock = std::chrono::steady_clock;
double steady_seconds() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }
double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

}  // namespace

EngineCore::EngineCore(std::unique_ptr<ForwardModel> model, const EngineOptions& options, StepObserver observer,
                       EndObserver end_observer, EngineClock clock)
    : options_(options),
      model_(std::move(model)),
      observer_(std::move(observer)),
      end_observer_(std::move(end_observer)),
      blocks_(options.num_blocks, options.block_size, options.enable_prefix_caching),
      clock_(clock ? std::move(clock) : steady_seconds),
      open_(options_, *model_, blocks_, clock_),
      planner_(options_, blocks_, queues_, open_),
      sampler_(model_->vocab_size(), options.num_valid_tokens,
               options.row_math != nullptr ? *options.row_math : fastest_row_math()) {}

void EngineCore::add(Request request, OutputSink sink, std::chrono::steady_clock::time_point submitted) {
  auto sequence = std::make_unique<Sequence>();
  Sequence& s = *sequence;
  s.rank = {.priority = request.priority, .arrival = num_added_++};
  s.seed = request.sampling.seed.value_or(derive_seed(options_.seed, s.rank.arrival));
  s.num_prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
  s.expanded_end = s.num_prompt_tokens / options_.prompt_tile_tokens * options_.prompt_tile_tokens;
  s.length_limit = sequence_length_limit(options_);
  s.counts = TokenCounts(request.sampling, request.prompt_ids);
  s.tokens = std::move(request.prompt_ids);
  s.tokens.reserve(s.tokens.size() + std::min<size_t>(request.sampling.max_tokens, kReservedTokens));
  s.request = std::move(request);
  s.sink = std::move(sink);
  s.submitted = submitted;
  if (s.wants_prompt_logprobs()) s.prompt_outputs.push_back({.token_id = s.tokens[0]});
  queues_.waiting.insert(&s);
  const bool is_new = sequences_.emplace(s.request.request_id, std::move(sequence)).second;
  HADAL_CHECK(is_new, "request id in use");
}

void EngineCore::abort(const std::string& request_id) {
  if (const auto found = sequences_.find(request_id); found != sequences_.end()) {
    finish(found->second.get(), FinishReason::kAbort);
  }
}

void EngineCore::abort_all() {
  while (!sequences_.empty()) finish(sequences_.begin()->second.get(), FinishReason::kAbort);
}

void EngineCore::fail_all(const std::string& error) {
  while (!sequences_.empty()) finish(sequences_.begin()->second.get(), FinishReason::kError, error);
}

void EngineCore::step() {
  const auto begin = Clock::now();
  const double begin_s = clock_();
  const StepProfile profile_before = model_->profile();
  const uint64_t generated_before = counters_.generation_tokens;
  StepRecord record;
  sampling_s_ = 0;
  plan();
  record.planning_s = seconds_since(begin);
  if (batch_.empty() && !open_.is_open()) return;
  check_plans();
  record.num_prefill_tokens = batch_.num_prefill_tokens;
  record.num_sequences = static_cast<int64_t>(batch_.members.size());
  if (!batch_.empty()) settle(batch_, run());
  if (open_.is_open() && !lost_ranks_) advance_open(clock_() - begin_s, record);
  ++counters_.num_steps;
  check_state();
  if (!observer_) return;
  record.num_generated_tokens = static_cast<int64_t>(counters_.generation_tokens - generated_before);
  record.num_decode_tokens = batch_.num_decode_tokens;
  record.num_preempted = batch_.num_preempted;
  record.sampling_s = sampling_s_;
  record.forward = model_->profile() - profile_before;
  record.duration_s = seconds_since(begin);
  observer_(record);
}

void EngineCore::plan() {
  if (options_.max_itl_ms <= 0) {
    planner_.plan(batch_);
  } else {
    planner_.plan_decodes_only(batch_);
    const bool decodes = !batch_.empty();
    // Blocks that a preemption just freed are for those that still run.
    if (!open_.is_open() && batch_.num_preempted == 0) {
      planner_.plan_prefills_only(decodes ? open_.batch() : batch_,
                                  decodes ? open_.max_tokens() : options_.max_num_batched_tokens);
      if (decodes && !open_.batch().empty()) {
        want_logits(open_.batch());
        open_.open();
      }
    }
  }
  counters_.num_preemptions += batch_.num_preempted;
}

void EngineCore::check_plans() const {
  if (!options_.check_invariants) return;
  const EngineSnapshot now = snapshot();
  std::string wrong = find_plan_violation(batch_.plan, now, options_);
  if (open_.is_open()) {
    if (wrong.empty()) wrong = find_plan_violation(open_.batch().plan, now, options_);
    if (wrong.empty()) wrong = find_company_violation(batch_.plan, open_.batch().plan, options_);
  }
  HADAL_CHECK(wrong.empty(), "{}", wrong);
}

// What the last row of each member is sampled by; rows of prompts are described whole.
void EngineCore::want_logits(StepBatch& batch) const {
  batch.plan.logit_wants.assign(batch.plan.logit_rows.size(), {});
  for (size_t i = 0; i < batch.members.size(); ++i) {
    const PlannedSequence& planned = batch.plan.sequences[i];
    const Sequence& member = *batch.members[i];
    if (planned.num_logits == 0 || planned.first_position + planned.num_tokens != member.num_tokens()) continue;
    batch.plan.logit_wants[static_cast<size_t>(planned.logit_begin + planned.num_logits - 1)] =
        sampler_.want(sample_context(member).rules);
  }
}

void EngineCore::reserve_logits(const StepPlan& plan) {
  const int64_t num_rows = static_cast<int64_t>(plan.logit_rows.size());
  if (num_rows <= logit_capacity_rows_) return;
  logit_capacity_rows_ = std::max(num_rows, std::min(2 * logit_capacity_rows_, options_.max_num_seqs));
  logits_.reset(new float[logit_capacity_rows_ * model_->vocab_size()]);
}

Status EngineCore::run() {
  reserve_logits(batch_.plan);
  want_logits(batch_);
  try {
    return model_->forward(make_step_input(batch_.plan, spans_), logits_.get());
  } catch (const std::exception& e) {
    return make_error(ErrorCode::kInternal, "the model threw: {}", e.what());
  }
}

// A slice beside the decodes, which took decode_s; all that is left when nothing decodes.
void EngineCore::advance_open(double decode_s, StepRecord& record) {
  const StepBatch& batch = open_.batch();
  reserve_logits(batch.plan);
  Expected<bool> finished = false;
  try {
    finished = batch_.empty() ? open_.run_rest(logits_.get()) : open_.run_slice(decode_s, logits_.get());
  } catch (const std::exception& e) {
    finished = make_error(ErrorCode::kInternal, "the model threw: {}", e.what());
  }
  if (finished && !*finished) return;
  record.num_prefill_tokens += batch.num_prefill_tokens;
  record.num_sequences += static_cast<int64_t>(batch.members.size());
  open_.close();
  settle(batch, finished ? Status{} : tl::unexpected<Error>(finished.error()));
}

void EngineCore::settle(const StepBatch& batch, const Status& ran) {
  if (!ran && ran.error().code == ErrorCode::kUnavailable) {
    lost_ranks_ = true;
    return log_error("a step failed: {}", ran.error().message);
  }
  if (!ran) {
    // Only rows of this plan are undefined, and those lie in blocks that are neither shared nor published.
    ++num_consecutive_failures_;
    log_error("a step failed: {}", ran.error().message);
  } else {
    num_consecutive_failures_ = 0;
  }
  for (size_t i = 0; i < batch.members.size(); ++i) {
    if (batch.members[i] == nullptr) continue;
    if (ran) {
      commit(batch.members[i], batch.plan.sequences[i]);
    } else {
      finish(batch.members[i], FinishReason::kError, ran.error().message);
    }
  }
}

Status EngineCore::recover() {
  const std::string why = fmt::format("a rank was lost while this request ran: {}", model_->trouble());
  open_.drop();
  std::vector<Sequence*> started;
  for (Sequence* sequence : queues_.running) ++sequence->num_losses;
  for (const auto& [id, sequence] : sequences_) {
    const bool is_suspect = sequence->num_losses > kMaxLosses;
    if (sequence->num_generated_tokens() > 0 || is_suspect) started.push_back(sequence.get());
  }
  for (Sequence* sequence : started) finish(sequence, FinishReason::kError, why);
  while (!queues_.running.empty()) planner_.preempt(queues_.running.back());
  blocks_.drop_unused_cached();
  check_state();
  HADAL_RETURN_IF_ERROR(model_->restore());
  lost_ranks_ = false;
  return {};
}

void EngineCore::commit(Sequence* sequence, const PlannedSequence& planned) {
  if (Status described = collect_prompt_logprobs(sequence, planned); !described) {
    return finish(sequence, FinishReason::kError, described.error().message);
  }
  const bool samples = planned.first_position + planned.num_tokens == sequence->num_tokens();
  const bool wants_tokens = sequence->request.sampling.max_tokens > 0;
  if (samples && wants_tokens) {
    if (Status sampled = sample(sequence, planned.logit_begin + planned.num_logits - 1); !sampled) {
      return finish(sequence, FinishReason::kError, sampled.error().message);
    }
  }
  sequence->num_computed_tokens += planned.num_tokens;
  blocks_.publish(sequence->blocks, sequence->computed(), sequence->request.cache_salt,
                  shareable_end(*sequence, options_));
  if (!samples) return;
  if (sequence->num_generated_tokens() == 0) {
    counters_.prompt_tokens += sequence->num_prompt_tokens - sequence->num_cached_tokens;
    if (options_.enable_prefix_caching && !sequence->wants_prompt_logprobs()) {
      counters_.prefix_cache_queries += sequence->num_prompt_tokens;
      counters_.prefix_cache_hits += sequence->num_cached_tokens;
    }
  }
  if (!wants_tokens) return finish(sequence, FinishReason::kLength);
  commit_token(sequence, token_);
}

Status EngineCore::sample(Sequence* sequence, int64_t logit_idx) {
  const auto begin = Clock::now();
  Status sampled =
      sampler_.sample(logits_of(logit_idx), sample_context(*sequence), token_, model_->partial_logits(logit_idx));
  sampling_s_ += seconds_since(begin);
  return sampled;
}

Status EngineCore::collect_prompt_logprobs(Sequence* sequence, const PlannedSequence& planned) {
  if (!sequence->misses_prompt_logprobs()) return {};
  const int64_t end = planned.first_position + planned.num_tokens;
  for (int64_t idx = 0; idx < planned.num_logits; ++idx) {
    const int64_t described = end - planned.num_logits + idx + 1;  // a row tells of the next position
    if (described >= sequence->num_prompt_tokens) break;
    TokenOutput& out = sequence->prompt_outputs.emplace_back();
    HADAL_RETURN_IF_ERROR(sampler_.describe(logits_of(planned.logit_begin + idx), sequence->tokens[described],
                                            sequence->request.sampling.num_prompt_logprobs, out));
  }
  return {};
}

void EngineCore::commit_token(Sequence* sequence, const TokenOutput& token) {
  try {
    if (sequence->request.constraint) sequence->request.constraint->accept(token.token_id);
  } catch (const std::exception& e) {
    return finish(sequence, FinishReason::kError, fmt::format("the token constraint failed: {}", e.what()));
  }
  const bool is_first = sequence->num_generated_tokens() == 0;
  sequence->tokens.push_back(token.token_id);
  sequence->counts.add_generated(token.token_id);
  ++counters_.generation_tokens;

  RequestOutput& output = new_output(sequence);
  output.tokens.push_back(token);
  if (is_first) output.prompt_tokens = std::move(sequence->prompt_outputs);
  output.finish_reason = finish_reason_after(*sequence, token.token_id);
  if (output.finish_reason == FinishReason::kStop) output.stop_token_id = token.token_id;
  if (output.finish_reason != FinishReason::kNone) return end(sequence);
  if (!deliver(sequence)) finish(sequence, FinishReason::kAbort);
}

FinishReason EngineCore::finish_reason_after(const Sequence& sequence, int32_t token_id) const {
  const SamplingParams& params = sequence.request.sampling;
  const bool is_stop =
      contains(params.stop_token_ids, token_id) || (!params.ignore_eos && contains(options_.eos_token_ids, token_id));
  if (is_stop && sequence.num_generated_tokens() > params.min_tokens) return FinishReason::kStop;
  if (sequence.num_generated_tokens() >= params.max_tokens) return FinishReason::kLength;
  return sequence.num_tokens() >= sequence.length_limit ? FinishReason::kLength : FinishReason::kNone;
}

SampleContext EngineCore::sample_context(const Sequence& sequence) const {
  return {.rules = {.params = &sequence.request.sampling,
                    .constraint = sequence.request.constraint.get(),
                    .counts = &sequence.counts,
                    .generated = sequence.generated(),
                    .eos_token_ids = options_.eos_token_ids},
          .seed = sequence.seed,
          .sample_idx = sequence.request.sample_idx,
          .position = static_cast<uint64_t>(sequence.num_tokens())};
}

float* EngineCore::logits_of(int64_t logit_idx) { return logits_.get() + logit_idx * model_->vocab_size(); }

RequestOutput& EngineCore::new_output(Sequence* sequence) {
  output_.tokens.clear();
  output_.prompt_tokens.clear();
  output_.finish_reason = FinishReason::kNone;
  output_.stop_token_id = -1;
  output_.error.clear();
  output_.num_prompt_tokens = sequence->num_prompt_tokens;
  output_.num_cached_tokens = sequence->num_cached_tokens;
  output_.queue_time_s = sequence->queue_time_s;
  return output_;
}

// False: the sink threw, so nobody listens any more.
bool EngineCore::deliver(Sequence* sequence) {
  if (!sequence->sink) return true;
  try {
    sequence->sink(std::move(output_));
    return true;
  } catch (const std::exception& e) {
    log_error("a request's sink threw: {}", e.what());
  } catch (...) {
    log_error("a request's sink threw");
  }
  sequence->sink = nullptr;
  return false;
}

void EngineCore::finish(Sequence* sequence, FinishReason reason, const std::string& error) {
  RequestOutput& output = new_output(sequence);
  output.finish_reason = reason;
  output.error = error;
  if (reason == FinishReason::kLength) output.prompt_tokens = std::move(sequence->prompt_outputs);
  end(sequence);
}

void EngineCore::end(Sequence* sequence) {
  const auto running = std::find(queues_.running.begin(), queues_.running.end(), sequence);
  if (running != queues_.running.end()) {
    queues_.running.erase(running);
  } else {
    queues_.waiting.erase(sequence);
  }
  if (sequence->in_open_step) {
    open_.release(sequence);
  } else {
    blocks_.release(sequence->blocks);
  }
  const auto node = sequences_.extract(sequence->request.request_id);
  if (end_observer_) end_observer_(node.key());
  deliver(sequence);
}

void EngineCore::check_state() const {
  if (!options_.check_invariants) return;
  const std::string wrong = find_violation(snapshot(), options_);
  HADAL_CHECK(wrong.empty(), "{}", wrong);
}

EngineStats EngineCore::stats() const {
  EngineStats stats = counters_;
  stats.num_requests_running = static_cast<int64_t>(queues_.running.size());
  stats.num_requests_waiting = static_cast<int64_t>(queues_.waiting.size());
  stats.num_blocks = options_.num_blocks;
  stats.num_free_blocks = blocks_.allocator().num_free();
  stats.kv_cache_usage =
      static_cast<double>(stats.num_blocks - stats.num_free_blocks) / static_cast<double>(stats.num_blocks);
  return stats;
}

}  // namespace hadal
