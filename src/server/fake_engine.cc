#include "server/fake_engine.h"

#include <algorithm>
#include <utility>

namespace hadal {

FakeEngine::FakeEngine(Script script, StepObserver observer)
    : script_(std::move(script)), observer_(std::move(observer)), thread_([this] { loop(); }) {}

FakeEngine::~FakeEngine() { stop(); }

Status FakeEngine::submit(Request request, OutputSink sink) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return make_error(ErrorCode::kUnavailable, "stopping");
  if (running_.size() >= max_running_) return make_error(ErrorCode::kResourceExhausted, "queue full");
  for (const auto& other : running_) {
    if (other->request.request_id == request.request_id) return make_error(ErrorCode::kInvalidArgument, "repeated id");
  }
  seen_.push_back(request);
  auto answer = script_(request);
  running_.push_back(std::make_shared<Running>(Running{std::move(request), std::move(sink), std::move(answer)}));
  changed_.notify_all();
  return {};
}

void FakeEngine::abort(const std::string& request_id) {
  const std::lock_guard lock(mutex_);
  for (const auto& one : running_) {
    if (one->request.request_id != request_id || one->aborted) continue;
    one->aborted = true;
    ++num_aborted_;
  }
  changed_.notify_all();
}

EngineStats FakeEngine::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = totals_;
  stats.num_requests_running = static_cast<int64_t>(running_.size());
  stats.num_preemptions = 7;
  return stats;
}

void FakeEngine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& one : running_) one->aborted = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void FakeEngine::hold() {
  const std::lock_guard lock(mutex_);
  held_ = true;
}

void FakeEngine::hold_in_step() {
  const std::lock_guard lock(mutex_);
  held_ = in_step_ = true;
}

void FakeEngine::release() {
  const std::lock_guard lock(mutex_);
  held_ = in_step_ = false;
  changed_.notify_all();
}

void FakeEngine::step(int num_steps) {
  std::unique_lock lock(mutex_);
  steps_allowed_ += num_steps;
  changed_.notify_all();
  changed_.wait_for(lock, std::chrono::seconds(30), [this] { return steps_allowed_ == 0; });
}

void FakeEngine::fail_next_step(std::string error) {
  const std::lock_guard lock(mutex_);
  error_ = std::move(error);
}

bool FakeEngine::wait_running(size_t num) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return running_.size() == num; });
}

size_t FakeEngine::num_aborted() const {
  const std::lock_guard lock(mutex_);
  return num_aborted_;
}

std::vector<Request> FakeEngine::seen() const {
  const std::lock_guard lock(mutex_);
  return seen_;
}

// As a real engine, it frees an aborted request before the next step, which needs no permission here.
void FakeEngine::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto has_aborted = [this] {
      return (!in_step_ || stopping_) &&
             std::any_of(running_.begin(), running_.end(), [](const auto& one) { return one->aborted; });
    };
    changed_.wait(lock, [&] {
      return (stopping_ && running_.empty()) || has_aborted() || (!running_.empty() && (!held_ || steps_allowed_ > 0));
    });
    if (stopping_ && running_.empty()) return;
    run_step(lock);
  }
}

void FakeEngine::run_step(std::unique_lock<std::mutex>& lock) {
  const bool may_step = !held_ || steps_allowed_ > 0;
  const std::string error = may_step ? std::exchange(error_, "") : "";
  const auto batch = running_;
  StepRecord record;
  for (const auto& one : batch) {
    RequestOutput output;
    if (one->aborted) {
      output.finish_reason = FinishReason::kAbort;
    } else if (!error.empty()) {
      output.finish_reason = FinishReason::kError;
      output.error = error;
    } else if (may_step) {
      output = advance(one.get(), &record);
    } else {
      continue;
    }
    const bool ended = output.finish_reason != FinishReason::kNone;
    lock.unlock();
    one->sink(std::move(output));
    lock.lock();
    if (ended) running_.erase(std::find(running_.begin(), running_.end(), one));
  }
  if (may_step && steps_allowed_ > 0) --steps_allowed_;
  totals_.prompt_tokens += static_cast<uint64_t>(record.num_prefill_tokens);
  totals_.generation_tokens += static_cast<uint64_t>(record.num_generated_tokens);
  record.duration_s = 0.5;
  record.sampling_s = 0.125;
  record.forward.num_threads = 3;
  record.forward.of(StepPhase::kExperts) = {
      .wall_s = 0.25, .busy_s = 0.5, .weight_bytes = 7, .flops = 9, .num_barriers = 2};
  record.forward.of(StepPhase::kCommunication) = {.comm_bytes = 11, .num_collectives = 4};
  record.forward.of(StepPhase::kHead) = {.kv_bytes = 5, .num_barriers = 1};
  if (observer_ && record.num_generated_tokens > 0) observer_(record);
  changed_.notify_all();
}

namespace {

// The script's token if the constraint allows it, else the lowest id that it allows, blanks last.
int32_t constrained(TokenConstraint& constraint, int32_t wish) {
  std::vector<float> logits(kTestVocabSize, 0.0F);
  std::fill_n(logits.begin(), ' ' + 1, -1.0F);
  logits[static_cast<size_t>(wish)] = 1;
  constraint.apply(logits.data(), kTestVocabSize);
  const auto best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  constraint.accept(best);
  return best;
}

}  // namespace

RequestOutput FakeEngine::advance(Running* running, StepRecord* record) const {
  const SamplingParams& sampling = running->request.sampling;
  RequestOutput output;
  output.num_prompt_tokens = static_cast<int64_t>(running->request.prompt_ids.size());
  output.num_cached_tokens = 1;
  output.queue_time_s = 0.001;
  const auto make = [](int32_t id, float logprob, int32_t num_top) {
    TokenOutput token{.token_id = id};
    if (num_top < 0) return token;
    token.logprob = TokenLogprob{id, logprob, 1};
    for (int32_t i = 0; i < num_top; ++i) {
      token.top_logprobs.push_back({(id + i) % kTestVocabSize, logprob - static_cast<float>(i), i + 1});
    }
    return token;
  };
  if (running->num_made == 0) {
    record->num_prefill_tokens += output.num_prompt_tokens;
    if (sampling.num_prompt_logprobs >= 0) {
      for (const int32_t id : running->request.prompt_ids) {
        output.prompt_tokens.push_back(
            make(id, -0.5F, output.prompt_tokens.empty() ? -1 : sampling.num_prompt_logprobs));
      }
    }
  } else {
    ++record->num_decode_tokens;
  }
  for (int i = 0; i < tokens_per_step_ && output.finish_reason == FinishReason::kNone; ++i) {
    const size_t k = running->num_made++;
    int32_t id = k < running->answer.size() ? running->answer[k] : kTestEos;
    if (running->request.constraint) id = constrained(*running->request.constraint, id);
    output.tokens.push_back(make(id, -static_cast<float>(k + 1) / 8, sampling.num_logprobs));
    ++record->num_generated_tokens;
    const auto& stops = sampling.stop_token_ids;
    const auto made = static_cast<int64_t>(running->num_made);
    if (made > sampling.min_tokens && std::find(stops.begin(), stops.end(), id) != stops.end()) {
      output.finish_reason = FinishReason::kStop;
      output.stop_token_id = id;
    } else if (made >= sampling.max_tokens) {
      output.finish_reason = FinishReason::kLength;
    }
  }
  return output;
}

}  // namespace hadal
