#include "engine/engine.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/log.h"
#include "engine/engine_core.h"
#include "engine/request_check.h"

namespace hadal {
namespace {

// A run that fails this often without a good one between will not recover.
constexpr int64_t kMaxConsecutiveFailures = 3;

class ThreadedEngine final : public Engine {
 public:
  ThreadedEngine(std::unique_ptr<ForwardModel> model, const EngineOptions& options, StepObserver observer)
      : options_(options),
        vocab_size_(model->vocab_size()),
        core_(std::move(model), options, std::move(observer), [this](const std::string& id) { forget_id(id); }),
        model_(core_.model()) {
    stats_ = core_.stats();
    model_.on_trouble([this] {
      const std::lock_guard lock(mutex_);
      wake_.notify_one();
    });
    thread_ = std::thread([this] { loop(); });
  }
  ~ThreadedEngine() override { stop(); }

  Status submit(Request request, OutputSink sink) override;
  void abort(const std::string& request_id) override;
  EngineStats stats() const override;
  bool healthy() const override;
  std::string trouble() const override { return model_.trouble(); }
  void reset_prefix_cache() override;
  void stop() override;

 private:
  struct Arrival {
    Request request;
    OutputSink sink;
    std::chrono::steady_clock::time_point submitted;
  };
  // What other threads ask for; handed over whole at the start of a step.
  struct Inbox {
    std::vector<Arrival> arrivals;
    std::vector<std::string> aborts;
    bool drop_cache = false;
    bool empty() const { return arrivals.empty() && aborts.empty() && !drop_cache; }
  };

  void loop();
  bool take_inbox(Inbox& inbox);
  bool needs_ranks() const { return !failed_ && core_.lost_ranks(); }
  void serve(Inbox& inbox);
  void add(Arrival& arrival) { core_.add(std::move(arrival.request), std::move(arrival.sink), arrival.submitted); }
  void recover();
  void give_up_after_failures();
  void give_up(const std::string& why);
  void forget_id(const std::string& request_id);

  const EngineOptions options_;
  const int64_t vocab_size_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_.
  Inbox inbox_;
  std::unordered_set<std::string> active_ids_;
  EngineStats stats_;
  bool stopping_ = false;
  bool failed_ = false;

  std::mutex join_mutex_;
  EngineCore core_;      // engine thread only, once it runs
  ForwardModel& model_;  // of core_, for its thread-safe functions
  std::thread thread_;
};

Status ThreadedEngine::submit(Request request, OutputSink sink) {
  HADAL_RETURN_IF_ERROR(check_request(request, options_, vocab_size_));
  const std::lock_guard lock(mutex_);
  if (stopping_) return make_error(ErrorCode::kUnavailable, "the engine is stopping");
  if (failed_) return make_error(ErrorCode::kUnavailable, "the engine failed and serves no more");
  const int64_t num_active = static_cast<int64_t>(active_ids_.size());
  if (num_active >= options_.max_num_seqs + options_.max_queued_requests) {
    return make_error(ErrorCode::kResourceExhausted,
                      "the queue is full: {} requests run or wait, at most {} may run and {} wait", num_active,
                      options_.max_num_seqs, options_.max_queued_requests);
  }
  if (!active_ids_.insert(request.request_id).second) {
    return make_error(ErrorCode::kInvalidArgument, "request id {} is in use", request.request_id);
  }
  inbox_.arrivals.push_back({std::move(request), std::move(sink), std::chrono::steady_clock::now()});
  wake_.notify_one();
  return {};
}

void ThreadedEngine::abort(const std::string& request_id) {
  const std::lock_guard lock(mutex_);
  if (!active_ids_.contains(request_id)) return;
  inbox_.aborts.push_back(request_id);
  wake_.notify_one();
}

EngineStats ThreadedEngine::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.num_requests_waiting += static_cast<int64_t>(inbox_.arrivals.size());
  return stats;
}

bool ThreadedEngine::healthy() const {
  if (!model_.trouble().empty()) return false;
  const std::lock_guard lock(mutex_);
  return !stopping_ && !failed_;
}

void ThreadedEngine::reset_prefix_cache() {
  const std::lock_guard lock(mutex_);
  inbox_.drop_cache = true;
  wake_.notify_one();
}

void ThreadedEngine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  model_.stop_restoring();
  const std::lock_guard lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
  model_.on_trouble({});
}

void ThreadedEngine::loop() {
  Inbox inbox;
  while (take_inbox(inbox)) {
    serve(inbox);
    const EngineStats stats = core_.stats();
    const std::lock_guard lock(mutex_);
    stats_ = stats;
  }
  for (Arrival& arrival : inbox.arrivals) add(arrival);
  core_.abort_all();
  const EngineStats stats = core_.stats();
  const std::lock_guard lock(mutex_);
  stats_ = stats;
}

// Waits until there is something to do. False: the engine stops; the inbox holds what was left.
bool ThreadedEngine::take_inbox(Inbox& inbox) {
  inbox.arrivals.clear();
  inbox.aborts.clear();
  inbox.drop_cache = false;
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [this] { return stopping_ || !inbox_.empty() || core_.has_work() || needs_ranks(); });
  std::swap(inbox, inbox_);
  return !stopping_;
}

void ThreadedEngine::serve(Inbox& inbox) {
  for (Arrival& arrival : inbox.arrivals) add(arrival);
  for (const std::string& id : inbox.aborts) core_.abort(id);
  if (inbox.drop_cache) core_.drop_unused_cached();
  if (!core_.lost_ranks()) core_.step();
  if (core_.lost_ranks()) recover();
  give_up_after_failures();
}

void ThreadedEngine::recover() {
  if (const Status recovered = core_.recover(); !recovered) give_up(recovered.error().message);
}

void ThreadedEngine::give_up_after_failures() {
  if (core_.num_consecutive_failures() < kMaxConsecutiveFailures) return;
  give_up(fmt::format("{} steps failed in a row", kMaxConsecutiveFailures));
}

void ThreadedEngine::give_up(const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    if (!failed_ && !stopping_) log_error("{}: the engine serves no more", why);
    failed_ = true;
  }
  core_.fail_all("the engine failed and serves no more");
}

void ThreadedEngine::forget_id(const std::string& request_id) {
  const std::lock_guard lock(mutex_);
  active_ids_.erase(request_id);
}

}  // namespace

Expected<std::unique_ptr<Engine>> make_engine(std::unique_ptr<ForwardModel> model, const EngineOptions& options,
                                              StepObserver observer) {
  HADAL_RETURN_IF_ERROR(check_options(options, *model));
  HADAL_RETURN_IF_ERROR(model->allocate_kv(options.num_blocks, options.block_size, options.max_num_batched_tokens));
  if (options.max_itl_ms > 0) {
    if (auto prepared = model->prepare_pieces(options.max_num_seqs); !prepared) {
      return forward_error(std::move(prepared), "max_itl_ms");
    }
  }
  return std::make_unique<ThreadedEngine>(std::move(model), options, std::move(observer));
}

}  // namespace hadal
