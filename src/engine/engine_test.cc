#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "engine/testing/core_harness.h"

namespace hadal {
namespace {

using namespace hadal::testing;
using ::testing::HasSubstr;

// Collects one request's outputs; wait() returns them when it has ended.
class Waiter {
 public:
  OutputSink sink() {
    return [shared = shared_](RequestOutput&& output) {
      for (auto& token : output.tokens) shared->received.tokens.push_back(std::move(token));
      shared->received.finish_reason = output.finish_reason;
      shared->received.error = output.error;
      if (output.finish_reason != FinishReason::kNone) shared->ended.set_value();
    };
  }
  const Received& wait() {
    shared_->ended.get_future().wait();
    return shared_->received;
  }

 private:
  struct Shared {
    std::promise<void> ended;
    Received received;
  };
  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

struct Running {
  std::shared_ptr<FakeModelState> state = std::make_shared<FakeModelState>();
  std::unique_ptr<Engine> engine;
};

Running start(const EngineOptions& options) {
  Running running;
  auto engine = make_engine(std::make_unique<FakeModel>(running.state), options);
  EXPECT_TRUE(engine) << engine.error().message;
  running.engine = std::move(*engine);
  return running;
}

TEST(Engine, ManyThreadsGetTheirOwnAnswers) {
  EngineOptions options = small_options();
  options.num_blocks = 150;  // with preemptions
  Running running = start(options);
  constexpr int kThreads = 4, kRequests = 40;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < kRequests; ++i) {
        Request request = make_request(fmt::format("{}-{}", thread, i), make_prompt(1 + (i * 7) % 50, i), 20);
        Waiter waiter;
        ASSERT_TRUE(running.engine->submit(request, waiter.sink()));
        if (i % 5 == 4) running.engine->abort(request.request_id);
        const Received& received = waiter.wait();
        if (received.finish_reason == FinishReason::kAbort) continue;
        EXPECT_TRUE(same_outputs(received.tokens, oracle_answer(request, options).tokens));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  running.engine->stop();
  EXPECT_EQ(running.state->violation, "");
  const EngineStats stats = running.engine->stats();
  EXPECT_EQ(stats.num_free_blocks, options.num_blocks);
  EXPECT_EQ(stats.num_requests_running + stats.num_requests_waiting, 0);
  EXPECT_GT(stats.generation_tokens, 0u);
}

TEST(Engine, SinksMayAbortAndSubmit) {
  Running running = start(small_options());
  Waiter second;
  Waiter first_end;
  Engine* engine = running.engine.get();
  auto forward = first_end.sink();
  bool submitted = false;
  ASSERT_TRUE(engine->submit(make_request("first", make_prompt(9, 1), 400), [&, forward](RequestOutput&& output) {
    if (!submitted) {
      submitted = true;
      EXPECT_TRUE(engine->submit(make_request("second", make_prompt(9, 2), 3), second.sink()));
      engine->abort("first");
    }
    forward(std::move(output));
  }));
  EXPECT_EQ(first_end.wait().finish_reason, FinishReason::kAbort);
  EXPECT_EQ(second.wait().tokens.size(), 3u);
}

TEST(Engine, AnIdIsFreeAgainInTheLastOutput) {
  Running running = start(small_options());
  Waiter second;
  Status resubmitted = make_error(ErrorCode::kInternal, "sink not called");
  Request request = make_request("id", make_prompt(9, 1), 1);
  ASSERT_TRUE(running.engine->submit(
      request, [&](RequestOutput&&) { resubmitted = running.engine->submit(request, second.sink()); }));
  EXPECT_EQ(second.wait().finish_reason, FinishReason::kLength);
  EXPECT_TRUE(resubmitted);
}

TEST(Engine, RefusesWhatCannotRun) {
  EngineOptions options = small_options();
  options.num_blocks = 10;
  Running running = start(options);
  const auto refusal = [&](Request request) {
    const Status status = running.engine->submit(std::move(request), [](RequestOutput&&) { FAIL(); });
    EXPECT_FALSE(status);
    return status ? std::string() : status.error().message;
  };
  EXPECT_THAT(refusal(make_request("x", {})), HasSubstr("no tokens"));
  EXPECT_THAT(refusal(make_request("x", make_prompt(512, 1))), HasSubstr("max_model_len is 512"));
  EXPECT_THAT(refusal(make_request("x", make_prompt(40, 1))),
              HasSubstr("41, but the KV cache holds 40 (10 blocks of 4"));
  EXPECT_THAT(refusal(make_request("x", {3, 97})), HasSubstr("token id 97 is outside the vocabulary of 97"));
  Request request = make_request("x", {1});
  request.sampling.top_p = 1.5f;
  EXPECT_THAT(refusal(request), HasSubstr("top_p must be in"));
  request = make_request("x", {1});
  request.sampling.temperature = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(refusal(request), HasSubstr("temperature must be in"));
  request = make_request("x", {1});
  request.sampling.logit_bias = {{-1, 1.0f}};
  EXPECT_THAT(refusal(request), HasSubstr("logit_bias"));
  request = make_request("x", {1});
  request.sampling.bad_words_token_ids = {{}};
  EXPECT_THAT(refusal(request), HasSubstr("bad_words"));
}

TEST(Engine, RefusesContradictingOptions) {
  const auto refusal = [](EngineOptions options) {
    const auto engine = make_engine(std::make_unique<FakeModel>(std::make_shared<FakeModelState>()), options);
    return engine ? std::string() : engine.error().message;
  };
  EngineOptions options = small_options();
  options.block_size = 3;
  EXPECT_THAT(refusal(options), HasSubstr("does not divide the prompt tile of 8"));
  options = small_options();
  options.max_num_batched_tokens = 31;
  EXPECT_THAT(refusal(options), HasSubstr("max_num_batched_tokens must be in [32"));
  options = small_options();
  options.max_model_len = int64_t{1} << 30;
  EXPECT_THAT(refusal(options), HasSubstr("max_model_len"));
}

// Holds the engine thread inside a sink until released.
class Gate {
 public:
  void wait() {
    std::unique_lock lock(mutex_);
    reached_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void wait_reached() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return reached_; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false, open_ = false;
};

TEST(Engine, RefusesBeyondTheQueueAndRepeatedIds) {
  EngineOptions options = small_options();
  options.max_num_seqs = 1;
  options.max_queued_requests = 2;
  Running running = start(options);
  Gate gate;
  ASSERT_TRUE(running.engine->submit(make_request("a", {1}), [&](RequestOutput&&) { gate.wait(); }));
  gate.wait_reached();
  Waiter b, c;
  ASSERT_TRUE(running.engine->submit(make_request("b", {1}), b.sink()));
  const Status repeated = running.engine->submit(make_request("b", {1}), {});
  ASSERT_FALSE(repeated);
  EXPECT_EQ(repeated.error().code, ErrorCode::kInvalidArgument);
  ASSERT_TRUE(running.engine->submit(make_request("c", {1}), c.sink()));
  const Status full = running.engine->submit(make_request("d", {1}), {});
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(running.engine->stats().num_requests_waiting, 2);
  gate.open();
  EXPECT_EQ(b.wait().finish_reason, FinishReason::kLength);
  EXPECT_EQ(c.wait().finish_reason, FinishReason::kLength);
}

TEST(Engine, SurvivesAFailedStepButNotThreeInARow) {
  Running running = start(small_options());
  const auto run_one = [&](const char* id) {
    Waiter waiter;
    const Status status = running.engine->submit(make_request(id, make_prompt(9, 1)), waiter.sink());
    return status ? waiter.wait().finish_reason : FinishReason::kNone;
  };
  running.state->num_failures_to_come = 2;
  EXPECT_EQ(run_one("a"), FinishReason::kError);
  EXPECT_EQ(run_one("b"), FinishReason::kError);
  EXPECT_EQ(run_one("c"), FinishReason::kLength);
  EXPECT_TRUE(running.engine->healthy());
  running.state->num_failures_to_come = 3;
  for (const char* id : {"d", "e", "f"}) EXPECT_EQ(run_one(id), FinishReason::kError);
  // The last answer is sent before the engine draws its conclusion.
  while (running.engine->healthy()) std::this_thread::yield();
  const Status refused = running.engine->submit(make_request("g", {1}), {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
}

TEST(Engine, StopAbortsWhatRunsAndRefusesWhatComes) {
  Running running = start(small_options());
  Waiter waiter;
  ASSERT_TRUE(running.engine->submit(make_request("a", make_prompt(9, 1), 500), waiter.sink()));
  running.engine->stop();
  running.engine->stop();
  const FinishReason reason = waiter.wait().finish_reason;
  EXPECT_TRUE(reason == FinishReason::kAbort || reason == FinishReason::kLength);
  EXPECT_FALSE(running.engine->healthy());
  EXPECT_EQ(running.engine->submit(make_request("b", {1}), {}).error().code, ErrorCode::kUnavailable);
}

TEST(Engine, ResetForgetsUnusedPrefixes) {
  Running running = start(small_options());
  const auto run_one = [&](const std::string& id) {
    Waiter waiter;
    EXPECT_TRUE(running.engine->submit(make_request(id, make_prompt(41, 1)), waiter.sink()));
    waiter.wait();
  };
  run_one("a");
  run_one("b");
  running.engine->reset_prefix_cache();
  run_one("c");
  running.engine->stop();
  const EngineStats stats = running.engine->stats();
  EXPECT_EQ(stats.prefix_cache_queries, 3u * 41);
  EXPECT_EQ(stats.prefix_cache_hits, 40u);
}

TEST(Engine, RecoversFromALostRank) {
  Running running = start(small_options());
  const Request request = make_request("a", make_prompt(20, 1), 8);
  running.state->lost = true;
  EXPECT_FALSE(running.engine->healthy());
  EXPECT_THAT(running.engine->trouble(), HasSubstr("rank 1"));
  Waiter waiter;
  ASSERT_TRUE(running.engine->submit(request, waiter.sink())) << "requests may wait meanwhile";
  EXPECT_TRUE(same_outputs(waiter.wait().tokens, oracle_answer(request, small_options()).tokens));
  EXPECT_TRUE(running.engine->healthy());
  EXPECT_EQ(running.engine->trouble(), "");
  EXPECT_EQ(running.state->num_restored, 1);
}

TEST(Engine, ServesNoMoreWhenARankDoesNotComeBack) {
  Running running = start(small_options());
  running.state->restore_fails = true;
  running.state->lost = true;
  Waiter waiter;
  ASSERT_TRUE(running.engine->submit(make_request("a", make_prompt(20, 1), 8), waiter.sink()));
  EXPECT_EQ(waiter.wait().finish_reason, FinishReason::kError);
  EXPECT_FALSE(running.engine->healthy());
  EXPECT_EQ(running.engine->submit(make_request("b", make_prompt(20, 1), 8), {}).error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace hadal
