#include "server/generation.h"

#include <algorithm>

#include "server/request_watch.h"

namespace hadal {
namespace {

double seconds(Generation::Clock::time_point from, Generation::Clock::time_point to) {
  return std::max(0.0, std::chrono::duration<double>(to - from).count());
}

}  // namespace

Generation::Generation(std::shared_ptr<Server::State> state, std::unique_ptr<Answer> answer,
                       std::vector<SamplingParams> sampling)
    : state_(std::move(state)),
      engine_(answer->context().serving->engine),
      answer_(std::move(answer)),
      sampling_(std::move(sampling)) {
  const AnswerContext& context = answer_->context();
  for (size_t i = 0; i < sampling_.size() * num_samples(); ++i) {
    const auto& prompt = context.prompts[i / num_samples()];
    // Unique whatever ids clients choose.
    std::string id = fmt::format("{}-{}#{}", context.head.id, i, state_->next_serial.fetch_add(1));
    choices_.push_back({std::move(id), ChoiceText(*context.serving->tokenizer, context.params, prompt.ids)});
  }
}

void Generation::start() {
  answer_->context().exchange->post([self = shared_from_this()] { self->submit_all(); });
}

void Generation::fail_later(ApiError error) {
  answer_->context().exchange->post([self = shared_from_this(), error = std::move(error)] { self->fail(error); });
}

Request Generation::make_request(size_t index) const {
  const AnswerContext& context = answer_->context();
  const size_t prompt = index / num_samples();
  Request request;
  request.request_id = choices_[index].request_id;
  request.prompt_ids = context.prompts[prompt].ids;
  request.sampling = sampling_[prompt];
  request.sample_idx = index % num_samples();
  request.priority = context.params.priority;
  request.cache_salt = context.params.cache_salt;
  if (context.constraint) {
    request.constraint =
        make_token_constraint(*context.constraint, context.prompts[prompt].text, sampling_[prompt].stop_token_ids);
  }
  return request;
}

void Generation::submit_all() {
  const auto& exchange = answer_->context().exchange;
  if (exchange->disconnected() || done_) return;
  state_->add_generation(shared_from_this());
  watch_request(*state_, shared_from_this(), answer_->context(), sampling_);
  num_running_ = choices_.size();
  for (size_t i = 0; i < choices_.size(); ++i) {
    state_->begin_engine_request();
    choices_[i].engine_ended = false;
    // Only time-stamps on the engine thread; text is made on the IO thread.
    auto submitted = engine_->submit(make_request(i), [self = shared_from_this(), i](RequestOutput&& output) {
      self->answer_->context().exchange->post([self, i, output = std::move(output), when = Clock::now()]() mutable {
        self->on_output(i, std::move(output), when);
      });
    });
    if (!submitted) {
      choices_[i].engine_ended = true;
      state_->end_engine_request();
      return refuse(to_api_error(submitted.error()));
    }
  }
  exchange->on_disconnect([self = shared_from_this()] {
    if (self->done_) return;
    self->done_ = true;
    self->end_all(FinishReason::kAbort);
    self->state_->remove_generation(self.get());
  });
}

void Generation::on_output(size_t index, RequestOutput&& output, Clock::time_point when) {
  Choice& choice = choices_[index];
  if (output.finish_reason != FinishReason::kNone && !choice.engine_ended) {
    choice.engine_ended = true;
    state_->end_engine_request();
  }
  if (choice.ended || done_) return;
  if (output.finish_reason == FinishReason::kError) {
    return fail({500, output.error.empty() ? "The engine failed" : output.error});
  }
  if (output.finish_reason == FinishReason::kAbort) {
    return fail({.status = 503, .message = "The request was aborted by the server", .retry_after_s = 1});
  }
  choice.num_cached_tokens = std::max(choice.num_cached_tokens, output.num_cached_tokens);
  const RequestOutput facts{.num_prompt_tokens = output.num_prompt_tokens,
                            .num_cached_tokens = output.num_cached_tokens,
                            .queue_time_s = output.queue_time_s};
  ChoiceDelta delta = choice.text.push(std::move(output));
  count_output(&choice, facts, delta, when);
  const FinishReason reason = delta.finish_reason;
  answer_->on_delta(index, std::move(delta), usage_of(index));
  if (reason == FinishReason::kNone || done_) return;
  if (!choice.engine_ended) engine_->abort(choice.request_id);  // a stop string, which the engine does not know
  end_choice(index, reason, when);
  if (num_running_ > 0) return;
  done_ = true;
  state_->remove_generation(this);
  answer_->finish(total_usage());
}

void Generation::count_output(Choice* choice, const RequestOutput& output, const ChoiceDelta& delta,
                              Clock::time_point when) {
  ServingMetrics& metrics = state_->metrics();
  const auto& arrival = answer_->context().exchange->request().arrival;
  if (delta.is_first) {
    choice->queue_s = output.queue_time_s;
    choice->first_token = when;
    metrics.count_first_token(seconds(arrival, when), output.num_prompt_tokens, output.num_cached_tokens);
  } else if (!delta.tokens.empty()) {
    metrics.count_token_gap(seconds(choice->last_token, when));
  }
  choice->last_token = when;
  metrics.count_tokens(static_cast<int64_t>(delta.tokens.size()));
}

void Generation::end_choice(size_t index, FinishReason reason, Clock::time_point when) {
  Choice& choice = choices_[index];
  if (choice.ended) return;
  choice.ended = true;
  --num_running_;
  const AnswerContext& context = answer_->context();
  const size_t prompt = index / num_samples();
  FinishedRequest finished{.reason = reason,
                           .num_prompt_tokens = static_cast<int64_t>(context.prompts[prompt].ids.size()),
                           .num_cached_tokens = choice.num_cached_tokens,
                           .num_generated_tokens = choice.text.num_tokens(),
                           .max_tokens = sampling_[prompt].max_tokens};
  const auto arrival = context.exchange->request().arrival;
  finished.times.e2e = seconds(arrival, when);
  if (choice.text.num_tokens() > 0) {
    finished.times.queue = choice.queue_s;
    finished.times.prefill = std::max(0.0, seconds(arrival, choice.first_token) - choice.queue_s);
    finished.times.decode = seconds(choice.first_token, choice.last_token);
    finished.times.inference = finished.times.prefill + finished.times.decode;
  }
  state_->metrics().count_finished(finished);
  // The last sample of its prompt?
  int64_t most_tokens = 0;
  for (size_t i = prompt * num_samples(); i < (prompt + 1) * num_samples(); ++i) {
    if (!choices_[i].ended) return;
    most_tokens = std::max(most_tokens, choices_[i].text.num_tokens());
  }
  state_->metrics().count_prompt_finished(context.params.n, most_tokens);
}

void Generation::end_all(FinishReason reason) {
  const auto now = Clock::now();
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (!choices_[i].engine_ended) engine_->abort(choices_[i].request_id);
    end_choice(i, reason, now);
  }
}

void Generation::fail(const ApiError& error) {
  if (done_) return;
  done_ = true;
  end_all(error.status == 500 ? FinishReason::kError : FinishReason::kAbort);
  state_->remove_generation(this);
  answer_->fail(error);
}

void Generation::refuse(const ApiError& error) {
  done_ = true;
  for (Choice& choice : choices_) {
    if (!choice.engine_ended) engine_->abort(choice.request_id);
    choice.ended = true;
  }
  state_->remove_generation(this);
  answer_->fail(error);
}

Usage Generation::usage_of(size_t index) const {
  const AnswerContext& context = answer_->context();
  const bool dropped = context.params.max_tokens == 0;  // echo only
  return {.num_prompt_tokens = static_cast<int64_t>(context.prompts[index / num_samples()].ids.size()),
          .num_completion_tokens = dropped ? 0 : choices_[index].text.num_tokens(),
          .num_cached_tokens = choices_[index].num_cached_tokens};
}

Usage Generation::total_usage() const {
  Usage total;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Usage one = usage_of(i);
    total.num_completion_tokens += one.num_completion_tokens;
    if (i % num_samples() > 0) continue;  // a prompt counts once
    total.num_prompt_tokens += one.num_prompt_tokens;
    total.num_cached_tokens += one.num_cached_tokens;
  }
  return total;
}

}  // namespace hadal
