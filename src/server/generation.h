// The engine requests behind one API request: submitted together, ended together. One object per API request; it lives
// on the IO thread of its connection and is kept alive by the sinks of its running engine requests.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "server/answer.h"
#include "server/choice_text.h"
#include "server/state.h"

namespace hadal {

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  using Clock = std::chrono::steady_clock;

  // sampling: one per prompt of the answer's context.
  Generation(std::shared_ptr<Server::State> state, std::unique_ptr<Answer> answer,
             std::vector<SamplingParams> sampling);

  // From any thread: submits on the IO thread. Every outcome reaches the client through the answer; when the client
  // goes away, the engine requests are aborted.
  void start();

  // From any thread. Aborts what runs and tells the client; nothing when it has ended.
  void fail_later(ApiError error);

  const AnswerHead& head() const { return answer_->context().head; }

 private:
  struct Choice {
    std::string request_id;
    ChoiceText text;
    bool ended = false;        // answered, or given up
    bool engine_ended = true;  // no more outputs will come
    int64_t num_cached_tokens = 0;
    double queue_s = 0;
    Clock::time_point first_token;
    Clock::time_point last_token;
  };

  void submit_all();
  Request make_request(size_t choice) const;
  void on_output(size_t choice, RequestOutput&& output, Clock::time_point when);
  void count_output(Choice* choice, const RequestOutput& output, const ChoiceDelta& delta, Clock::time_point when);
  void end_choice(size_t index, FinishReason reason, Clock::time_point when);
  void end_all(FinishReason reason);  // aborts the rest
  void fail(const ApiError& error);
  void refuse(const ApiError& error);  // not admitted: counts as no request
  Usage usage_of(size_t choice) const;
  Usage total_usage() const;
  size_t num_samples() const { return static_cast<size_t>(answer_->context().params.n); }

  const std::shared_ptr<Server::State> state_;
  const std::shared_ptr<Engine> engine_;
  const std::unique_ptr<Answer> answer_;
  const std::vector<SamplingParams> sampling_;
  std::vector<Choice> choices_;
  size_t num_running_ = 0;
  bool done_ = false;  // the client has its answer, or is gone
};

}  // namespace hadal
