#include "engine/ranked_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <future>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "comm/local_communicator.h"
#include "engine/testing/core_harness.h"

namespace hadal {
namespace {

using namespace hadal::testing;
using std::chrono::milliseconds;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr milliseconds kLong{60'000};  // never reached when all goes well

std::unique_ptr<Communicator> join(int fd, int rank, const SegmentSizes& sizes) {
  auto joined = join_local_group(fd, {.rank = rank, .sizes = sizes, .timeout = kLong});
  EXPECT_TRUE(joined) << joined.error().message;
  return std::move(*joined);
}

// Ranks on threads, each with a fake model that checks every step by itself. A rank that breaks off joins the next
// group, as a process would.
class Ranks final : public RankAssembly {
 public:
  explicit Ranks(int world_size) : world_size_(world_size), workers_(static_cast<size_t>(world_size)) {}
  ~Ranks() override { end(); }

  Expected<AssembledRanks> assemble() override {
    if (num_assembled_ > limit) return make_error(ErrorCode::kUnavailable, "rank 1 does not come back");
    end();
    const SegmentSizes sizes{world_size_, 1 << 14, 1 << 12};
    const int control = SharedSegment::create(sizes).value(), data = SharedSegment::create(sizes).value();
    files_ = {control, data};
    const auto generation = static_cast<uint32_t>(num_assembled_++);
    for (int rank = 1; rank < world_size_; ++rank) {
      Worker& worker = workers_[static_cast<size_t>(rank)];
      worker.thread = std::thread([this, &worker, rank, sizes, control, data, generation] {
        worker.rank_state.model = &worker.model;
        const AssembledRanks ranks{{join(control, rank, sizes), join(data, rank, sizes), "threads"}, generation};
        const auto stopped = run_rank(worker.rank_state, ranks, options_);
        worker.stopped = stopped.has_value();
        if (!stopped) worker.error = stopped.error().message;
      });
    }
    return AssembledRanks{{join(control, 0, sizes), join(data, 0, sizes), "threads"}, generation};
  }
  std::string state() const override { return "rank 1 is started again"; }
  void cancel() override {}
  void disband() override {
    ++num_disbanded;
    if (late_loss.empty()) return;
    lost_(std::exchange(late_loss, ""));
  }
  void on_loss(std::function<void(const std::string&)> lost) override { lost_ = std::move(lost); }

  void end() {
    for (Worker& worker : workers_) {
      if (worker.thread.joinable()) worker.thread.join();
    }
    for (const int file : std::exchange(files_, {})) close(file);
  }
  struct Worker {
    std::shared_ptr<FakeModelState> state = std::make_shared<FakeModelState>();
    FakeModel model{state};
    RankState rank_state;
    std::thread thread;
    std::atomic<bool> stopped{false};
    std::string error;
  };
  Worker& worker(int rank) { return workers_[static_cast<size_t>(rank)]; }
  int num_assembled() const { return num_assembled_; }
  void report_loss(const std::string& what) { lost_(what); }

  int limit = 100;
  int num_disbanded = 0;
  std::string late_loss;  // told just before the group is no more

 private:
  const int world_size_;
  const RankedModelOptions options_{.heartbeat = milliseconds(50), .timeout = kLong, .setup_timeout = kLong};
  std::vector<Worker> workers_;
  std::vector<int> files_;  // of the group
  std::atomic<int> num_assembled_{0};
  std::function<void(const std::string&)> lost_;
};

struct Running {
  std::shared_ptr<Ranks> ranks;
  std::shared_ptr<FakeModelState> own = std::make_shared<FakeModelState>();
  std::unique_ptr<ForwardModel> model;
};

Running start(int world_size, milliseconds heartbeat = kLong, const std::function<void(Ranks&)>& prepare = {}) {
  set_log_level(LogLevel::kOff);
  Running running;
  running.ranks = std::make_shared<Ranks>(world_size);
  if (prepare) prepare(*running.ranks);
  auto model = make_ranked_model(std::make_unique<FakeModel>(running.own), running.ranks,
                                 {.heartbeat = heartbeat, .timeout = kLong, .setup_timeout = kLong});
  EXPECT_TRUE(model) << model.error().message;
  running.model = std::move(*model);
  return running;
}

std::vector<Request> some_requests() {
  std::vector<Request> requests;
  for (const int64_t length : {1, 7, 8, 40, 200}) {
    requests.push_back(make_request(fmt::format("r{}", length), make_prompt(length, 9), 20));
  }
  return requests;
}

// Runs them on an engine of its own; every answer as the oracle says. Returns how many failed instead, with a reason
// that names a rank.
int expect_answers(std::unique_ptr<ForwardModel> model, const EngineOptions& options) {
  auto engine = make_engine(std::move(model), options);
  EXPECT_TRUE(engine) << engine.error().message;
  const std::vector<Request> requests = some_requests();
  std::vector<Received> received(requests.size());
  std::vector<std::promise<void>> ended(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_TRUE((*engine)->submit(requests[i], [&, i](RequestOutput&& output) {
      for (auto& token : output.tokens) received[i].tokens.push_back(std::move(token));
      if (output.finish_reason == FinishReason::kNone) return;
      received[i].error = output.error;
      ended[i].set_value();
    }));
  }
  int num_failed = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    ended[i].get_future().wait();
    if (received[i].error.empty()) {
      EXPECT_TRUE(same_outputs(received[i].tokens, oracle_answer(requests[i], options).tokens)) << i;
    } else {
      EXPECT_THAT(received[i].error, HasSubstr("rank"));
      EXPECT_FALSE(received[i].tokens.empty()) << "only one that has begun";
      ++num_failed;
    }
  }
  return num_failed;
}

class RankedModel : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Worlds, RankedModel, ::testing::Values(2, 4));

TEST_P(RankedModel, EveryRankRunsEveryStep) {
  for (const double max_itl_ms : {0.0, 1.0}) {
    EngineOptions options = small_options();
    options.max_itl_ms = max_itl_ms;
    options.num_blocks = 150;
    Running running = start(GetParam());
    EXPECT_EQ(expect_answers(std::move(running.model), options), 0);
    running.ranks->end();
    EXPECT_EQ(running.own->violation, "");
    for (int rank = 1; rank < GetParam(); ++rank) {
      const auto& worker = running.ranks->worker(rank);
      EXPECT_TRUE(worker.stopped) << worker.error;
      EXPECT_EQ(worker.state->violation, "");
      EXPECT_EQ(worker.state->num_steps, running.own->num_steps);
      EXPECT_EQ(worker.state->num_rows, running.own->num_rows);
      EXPECT_EQ(worker.state->num_opened, running.own->num_opened);
    }
  }
}

TEST_P(RankedModel, EveryRankTakesPartInGatheringRanges) {
  Running running = start(GetParam());
  ASSERT_TRUE(running.model->gather_ranges());
  running.model.reset();
  running.ranks->end();
  EXPECT_EQ(running.own->num_gathered, 1);
  for (int rank = 1; rank < GetParam(); ++rank) {
    EXPECT_TRUE(running.ranks->worker(rank).stopped);
    EXPECT_EQ(running.ranks->worker(rank).state->num_gathered, 1);
  }
}

TEST_P(RankedModel, ARankThatFailsIsReplaced) {
  Running running = start(GetParam());
  auto state = running.ranks->worker(1).state;
  state->num_failures_to_come = 1;
  // Rank 0 learns of it with its next step, when the shortest prompts have their first token.
  EXPECT_LT(expect_answers(std::move(running.model), small_options()), 5);
  running.ranks->end();
  EXPECT_EQ(running.ranks->num_assembled(), 2);
  EXPECT_TRUE(running.ranks->worker(1).stopped);
  EXPECT_EQ(state->violation, "") << "the cache is not allocated twice";
}

TEST_P(RankedModel, StepsFailFromALossOnUntilRestored) {
  Running running = start(GetParam());
  std::atomic<int> num_woken{0};
  running.model->on_trouble([&] { ++num_woken; });
  ASSERT_TRUE(running.model->allocate_kv(8, 4, 16));
  EXPECT_EQ(running.model->trouble(), "");
  running.ranks->report_loss("rank 1 (node 0) ended: signal 9 (Killed)");
  EXPECT_EQ(num_woken, 1);
  EXPECT_THAT(running.model->trouble(), HasSubstr("signal 9"));
  const int32_t ids[] = {1}, rows[] = {0}, table[] = {0};
  const SequenceSpan span{.num_tokens = 1, .block_table = table};
  const StepInput input{.token_ids = ids, .sequences = {&span, 1}, .logit_rows = rows};
  std::vector<float> logits(kFakeVocabSize);
  const Status failed = running.model->forward(input, logits.data());
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kUnavailable);
  running.ranks->late_loss = "rank 1 (node 0) ended, once more";
  ASSERT_TRUE(running.model->restore());
  EXPECT_EQ(running.model->trouble(), "");
  EXPECT_EQ(running.ranks->num_disbanded, 1);
  EXPECT_EQ(running.ranks->num_assembled(), 2) << "one loss, however often it was told";
  EXPECT_TRUE(running.model->forward(input, logits.data()));
  running.ranks->limit = 0;
  running.ranks->report_loss("again");
  EXPECT_FALSE(running.model->restore());
  EXPECT_EQ(running.model->trouble(), "rank 1 is started again");
}

TEST(RankedModelSetup, FailsEverywhereWhenItFailsAnywhere) {
  const auto prepare = [](Ranks& ranks) { ranks.worker(2).rank_state.kv[0] = 1; };  // as if it had another cache
  Running running = start(3, kLong, prepare);
  const Status failed = running.model->allocate_kv(8, 4, 16);
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message, HasSubstr("rank 2: the KV cache has another size"));
  EXPECT_EQ(running.model->trouble(), "") << "the ranks are still together";
}

TEST(RankedModelSetup, PingsWhileIdle) {
  Running running = start(2, milliseconds(5));
  ASSERT_TRUE(running.model->allocate_kv(8, 4, 16));
  // Ends by an event: a ping that fails, since the other rank has a failure to report no more.
  std::promise<void> woken;
  running.model->on_trouble([&] { woken.set_value(); });
  running.ranks->worker(1).state->num_failures_to_come = 1;
  const int32_t ids[] = {1}, table[] = {0};
  const SequenceSpan span{.num_tokens = 1, .block_table = table};
  // Rank 1 fails in this step and leaves; nothing in the step itself tells rank 0.
  static_cast<void>(running.model->forward({.token_ids = ids, .sequences = {&span, 1}, .logit_rows = {}}, nullptr));
  woken.get_future().wait();
  EXPECT_THAT(running.model->trouble(), HasSubstr("rank"));
}

}  // namespace
}  // namespace hadal
