#include "comm/rank_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <thread>
#include <vector>

#include "comm/comm_test_support.h"
#include "comm/rank_card.h"
#include "comm/rendezvous.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr milliseconds kLong{60'000};
const RankGroupOptions kOptions{.join_timeout = kLong, .data_timeout = kLong, .control_timeout = kLong};

// Ranks of `nnodes` nodes, which are all this machine.
RankIdentity identity_of(int rank, int world, int nnodes) {
  const int locals = world / nnodes;
  return {.rank = rank,
          .world_size = world,
          .local_rank = rank % locals,
          .local_world_size = locals,
          .node_rank = rank / locals,
          .nnodes = nnodes,
          .interface_name = "lo"};
}

struct Layout {
  int world, nnodes;
  const char* transport;
};
class RankGroup : public ::testing::TestWithParam<Layout> {};
INSTANTIATE_TEST_SUITE_P(
    Layouts, RankGroup,
    ::testing::Values(Layout{1, 1, "shared memory"}, Layout{3, 1, "shared memory"}, Layout{2, 2, "TCP (lo 127.0.0.1)"},
                      Layout{4, 2, "shared memory + TCP (lo 127.0.0.1)"}, Layout{6, 2, "TCP (lo 127.0.0.1)"}),
    [](const auto& info) { return fmt::format("{}_ranks_on_{}_nodes", info.param.world, info.param.nnodes); });

TEST_P(RankGroup, JoinsThreadsAndSums) {
  const auto [world, nnodes, transport] = GetParam();
  MemoryStore store;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < world; ++rank) {
    threads.emplace_back([&, rank, world = world, nnodes = nnodes, transport = transport] {
      auto groups = join_rank_groups(store, identity_of(rank, world, nnodes), kOptions);
      ASSERT_TRUE(groups) << groups.error().message;
      EXPECT_EQ(groups->transport, transport);
      for (Communicator* comm : {groups->control.get(), groups->data.get()}) {
        EXPECT_EQ(comm->rank(), rank);
        EXPECT_EQ(comm->world_size(), world);
        float value = static_cast<float>(rank + 1);
        ASSERT_TRUE(comm->all_reduce(&value, 1, DType::kF32));
        EXPECT_EQ(value, static_cast<float>(world * (world + 1) / 2));
        ASSERT_TRUE(comm->barrier());
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

// Ranks as processes; rank 0 is this one. Their store is the rendezvous.
class Processes {
 public:
  Processes(int world, int nnodes, const std::function<void(RankGroups&)>& body) : world_(world), nnodes_(nnodes) {
    server_ = RendezvousServer::start({.address = "127.0.0.1", .token = "t"}).value();
    for (int rank = 1; rank < world; ++rank) {
      const pid_t child = fork();
      if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        RankGroups groups = join(rank);
        body(groups);
        groups = {};
        _exit(0);
      }
      children_.push_back(child);
    }
  }
  ~Processes() {
    for (const pid_t child : children_) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
  }

  RankGroups join(int rank, const RankGroupOptions& options = kOptions) const {
    const auto store =
        connect_rendezvous({.address = "127.0.0.1", .port = server_->port(), .token = "t"}, rank, kLong).value();
    auto groups = join_rank_groups(*store, identity_of(rank, world_, nnodes_), options);
    if (!groups) fmt::print(stderr, "{}\n", groups.error().message);
    return std::move(groups).value();
  }

 private:
  int world_, nnodes_;
  std::unique_ptr<RendezvousServer> server_;
  std::vector<pid_t> children_;
};

// The last rank ends by `signal` after a barrier; what rank 0 is told when it sums next.
std::string lose_last(int world, int nnodes, int signal, milliseconds timeout) {
  const Processes ranks(world, nnodes, [&](RankGroups& groups) {
    if (!groups.data->barrier()) return;
    if (groups.data->rank() == world - 1) kill(getpid(), signal);
    float value = 1;
    (void)groups.data->all_reduce(&value, 1, DType::kF32);
    pause();
  });
  RankGroups groups = ranks.join(0, {.join_timeout = kLong, .data_timeout = timeout, .control_timeout = kLong});
  EXPECT_TRUE(groups.data->barrier());
  float value = 1;
  const Status status = groups.data->all_reduce(&value, 1, DType::kF32);
  return status ? "no error" : status.error().message;
}

TEST(RankGroupOfProcesses, ADeadRankIsToldToAllAtOnce) {
  EXPECT_THAT(lose_last(2, 1, SIGKILL, kLong), AllOf(HasSubstr("rank 1 (process"), HasSubstr("has died")));
  EXPECT_THAT(lose_last(2, 2, SIGKILL, kLong), HasSubstr("rank 0 in all_reduce of 4 bytes (operation 2): lost rank 1"));
  // Rank 2 sees the death of its neighbour and tells rank 0.
  EXPECT_THAT(lose_last(4, 2, SIGKILL, kLong), AllOf(HasSubstr("rank 2 gave up"), HasSubstr("rank 3 (process")));
}

TEST(RankGroupOfProcesses, AFrozenRankIsNamedAfterTheTimeout) {
  EXPECT_THAT(lose_last(2, 1, SIGSTOP, milliseconds(200)),
              AllOf(HasSubstr("ms for rank 1 (process"), HasSubstr("lives but does not come")));
  EXPECT_THAT(lose_last(2, 2, SIGSTOP, milliseconds(200)), HasSubstr("waited 200 ms for rank 1, which is connected"));
}

// Waiting for a plan or a heartbeat costs (almost) nothing. Measured in CPU time, so that a busy machine is no matter.
TEST(RankGroupOfProcesses, AnIdleRankSleeps) {
  for (const int nnodes : {1, 2}) {
    const Processes ranks(2, nnodes, [&](RankGroups& groups) {
      std::byte plan{};
      (void)groups.control->broadcast({&plan, 1}, 0);
      rusage before{}, after{};
      getrusage(RUSAGE_THREAD, &before);
      (void)groups.control->broadcast({&plan, 1}, 0);
      getrusage(RUSAGE_THREAD, &after);
      const auto ms = [](const rusage& use) {
        return (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e3 + (use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e3;
      };
      plan = static_cast<std::byte>(std::min(255.0, ms(after) - ms(before)));
      (void)groups.control->send({&plan, 1}, 0);
      pause();
    });
    RankGroups groups = ranks.join(0);
    std::byte plan{};
    ASSERT_TRUE(groups.control->broadcast({&plan, 1}, 0));
    std::this_thread::sleep_for(milliseconds(1000));
    ASSERT_TRUE(groups.control->broadcast({&plan, 1}, 0));
    ASSERT_TRUE(groups.control->recv({&plan, 1}, 1));
    EXPECT_LT(static_cast<int>(plan), 20) << "ms of CPU time in a second, with " << nnodes << " node(s)";
  }
}

TEST(RankGroupErrors, NamesWhoIsMissing) {
  MemoryStore store;
  const auto joined = join_rank_groups(store, identity_of(1, 4, 1), {.join_timeout = milliseconds(80)});
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(joined.error().message, HasSubstr("rank 1 of 4 waited 80 ms for rank(s) 0, 2, 3"));
}

TEST(RankGroupErrors, RefusesContradictions) {
  MemoryStore store;
  RankIdentity wrong = identity_of(1, 4, 2);
  wrong.local_rank = 2;
  EXPECT_THAT(join_rank_groups(store, wrong).error().message, HasSubstr("these contradict each other"));
  RankIdentity loopback = identity_of(0, 4, 2);
  loopback.interface_name.clear();
  EXPECT_THAT(join_rank_groups(store, loopback).error().message, HasSubstr("is a loopback address"));

  const auto cards_of = [](int world, int nnodes) {
    std::vector<RankCard> cards;
    for (int rank = 0; rank < world; ++rank) cards.push_back(own_card(identity_of(rank, world, nnodes), ""));
    return cards;
  };
  EXPECT_TRUE(check_cards(cards_of(4, 2)));
  auto mixed = cards_of(4, 2);
  std::swap(mixed[1], mixed[2]);
  EXPECT_THAT(check_cards(mixed).error().message, HasSubstr("Ranks of a node must be consecutive"));
  auto other_layout = cards_of(4, 2);
  other_layout[3].nnodes = 3;
  EXPECT_THAT(check_cards(other_layout).error().message, HasSubstr("node 1 of 3"));
  auto cut = cards_of(4, 2);
  cut.pop_back();
  EXPECT_THAT(check_cards(cut).error().message, HasSubstr("is not the last of its node"));
}

TEST(RankCard, SurvivesDamage) {
  const RankCard card = own_card(identity_of(3, 4, 2), "10.0.0.1");
  const std::string text = card.to_text();
  const RankCard read = RankCard::from_text(text).value();
  EXPECT_EQ(read.to_text(), text);
  EXPECT_EQ(read.address, "10.0.0.1");
  for (size_t cut = 0; cut < text.size(); ++cut) {
    const auto damaged = RankCard::from_text(text.substr(0, cut));
    if (damaged) {
      EXPECT_EQ(damaged->to_text(), text.substr(0, cut)) << "only the last field is shorter";
    }
  }
  for (const char* bad : {"", "1", "-1\n2\n3\n4\n5\na\nb\nc\nd", "1\n2\n3\n4\n99999999999\na\nb\nc\nd",
                          "1\n2\n3\n4\n5\na\nb\nc\nd\ne", "1 \n2\n3\n4\n5\na\nb\nc\nd"}) {
    EXPECT_EQ(RankCard::from_text(bad).error().code, ErrorCode::kCorrupt) << bad;
  }
}

TEST(RankToken, IsNeverTheSame) {
  EXPECT_EQ(make_rank_token().size(), 32U);
  EXPECT_NE(make_rank_token(), make_rank_token());
}

}  // namespace
}  // namespace hadal
