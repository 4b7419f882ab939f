// An engine with scripted answers, whose steps the test controls, over ids that are bytes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"

namespace hadal {

// Ids 0..255 are the bytes; then these.
inline constexpr int32_t kTestBos = 256;
inline constexpr int32_t kTestEos = 257;
inline constexpr int32_t kTestThink = 258;     // "<think>", not special
inline constexpr int32_t kTestEndThink = 259;  // "</think>", not special
inline constexpr int32_t kTestVocabSize = 260;

// Answers each request with its script, one token per step, then EOS; obeys max_tokens, stop_token_ids and the
// constraint (a forbidden token is replaced by the lowest allowed one, blanks last). The k-th token has logprob
// -(k + 1) / 8, alternatives are the next ids at one less each. Thread-safe, the setters before the first request
// aside.
class FakeEngine : public Engine {
 public:
  using Script = std::function<std::vector<int32_t>(const Request&)>;
  explicit FakeEngine(Script script, StepObserver observer = {});
  ~FakeEngine() override;

  Status submit(Request request, OutputSink sink) override;
  void abort(const std::string& request_id) override;
  EngineStats stats() const override;
  bool healthy() const override { return healthy_; }
  void reset_prefix_cache() override {}
  void stop() override;

  // No step happens between hold() and release(), but those asked for.
  void hold();
  void hold_in_step();  // what is aborted ends with stop() or after release()
  void release();
  void step(int num_steps = 1);
  void set_healthy(bool healthy) { healthy_ = healthy; }
  void set_max_running(size_t max) { max_running_ = max; }
  void set_tokens_per_step(int num) { tokens_per_step_ = num; }
  void fail_next_step(std::string error);

  bool wait_running(size_t num) const;  // within 30 s
  size_t num_aborted() const;
  std::vector<Request> seen() const;

 private:
  struct Running {
    Request request;
    OutputSink sink;
    std::vector<int32_t> answer;
    size_t num_made = 0;
    bool aborted = false;
  };
  void loop();
  void run_step(std::unique_lock<std::mutex>& lock);
  RequestOutput advance(Running* running, StepRecord* record) const;

  const Script script_;
  const StepObserver observer_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::vector<std::shared_ptr<Running>> running_;
  std::vector<Request> seen_;
  size_t num_aborted_ = 0;
  EngineStats totals_;  // tokens only
  size_t max_running_ = 1024;
  int tokens_per_step_ = 1;
  bool held_ = false;
  bool in_step_ = false;
  int steps_allowed_ = 0;
  bool stopping_ = false;
  std::atomic<bool> healthy_{true};
  std::string error_;
  std::thread thread_;
};

}  // namespace hadal
