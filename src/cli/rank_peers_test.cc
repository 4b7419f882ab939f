// What rank 0 knows of the other ranks, with a launcher that only writes down what it is asked for.
#include "cli/rank_peers.h"

#include <gmock/gmock.h>

#include "cli/rank_contract.h"

namespace hadal {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

struct Asked {
  LaunchListener listener;
  std::vector<LaunchUnit> units;
  bool is_closed = false;
};

class WritingLauncher final : public Launcher {
 public:
  explicit WritingLauncher(Asked& asked) : asked_(asked) {}
  ~WritingLauncher() override { asked_.is_closed = true; }
  Expected<LaunchLayout> prepare(const LaunchRequest&, LaunchListener listener) override {
    asked_.listener = std::move(listener);
    return LaunchLayout{{2, 2}, "10.0.0.1"};
  }
  Status start(const LaunchUnit& unit) override {
    asked_.units.push_back(unit);
    return {};
  }
  void kill(int) override {}

 private:
  Asked& asked_;
};

// Ranks 0 and 1 on node 0, of which 1 was started by somebody else, 2 and 3 on node 1.
class RankPeersTest : public testing::Test {
 protected:
  RankPeersTest() {
    RankPeersOptions options{.launcher = *LaunchedNodes::prepare(std::make_unique<WritingLauncher>(asked_), {}),
                             .ranks_per_node = {2, 2},
                             .starts_local_ranks = false};
    peers_.emplace(std::move(options), [this](const std::string& what) { lost_.push_back(what); });
  }
  Status start_all(const std::string& interface_name = "") {
    return peers_->start_all({.world_size = 4,
                              .local_world_size = 2,
                              .nnodes = 2,
                              .master_addr = "10.0.0.1",
                              .master_port = 29501,
                              .interface_name = interface_name,
                              .token = "secret"});
  }
  RankContract contract(size_t unit) const { return **read_rank_contract(asked_.units.at(unit).env); }
  void end_node(int node) {
    asked_.listener({.kind = LaunchEvent::Kind::kExited, .node_rank = node, .what = "signal 9 (Killed)"});
  }
  std::vector<int> take_ended() {
    std::vector<int> ranks;
    for (const RankPeers::Ended& ended : peers_->take_ended()) ranks.push_back(ended.rank);
    return ranks;
  }

  Asked asked_;
  std::vector<std::string> lost_;
  std::optional<RankPeers> peers_;
};

TEST_F(RankPeersTest, StartsOneAgentOnEveryOtherNode) {
  ASSERT_TRUE(start_all("eth0"));
  ASSERT_EQ(asked_.units.size(), 1u);
  EXPECT_EQ(asked_.units[0].node_rank, 1);
  EXPECT_EQ(asked_.units[0].first_rank, 2);
  EXPECT_EQ(asked_.units[0].num_ranks, 2);
  EXPECT_TRUE(contract(0).is_agent);
  EXPECT_EQ(contract(0).identity.rank, 2);
  EXPECT_EQ(contract(0).identity.node_rank, 1);
  EXPECT_EQ(contract(0).identity.interface_name, "eth0");
  EXPECT_EQ(peers_->describe(3), "rank 3 (node 1)");
  EXPECT_THAT(take_ended(), IsEmpty());
}

TEST_F(RankPeersTest, AnAddressOfRankZeroIsNoAddressOfOthers) {
  ASSERT_TRUE(start_all("10.0.0.1"));
  EXPECT_EQ(contract(0).identity.interface_name, "");
}

TEST_F(RankPeersTest, ANodeThatEndsIsStartedAgainByOneOfItsRanks) {
  ASSERT_TRUE(start_all());
  ASSERT_TRUE(peers_->take_report(3, {.nonce = "first", .error = "", .host = ""}));
  end_node(1);
  EXPECT_THAT(lost_, ElementsAre("node 1 ended: signal 9 (Killed)"));
  EXPECT_THAT(take_ended(), ElementsAre(2));
  EXPECT_EQ(peers_->report(3).nonce, "");
  ASSERT_TRUE(peers_->start(2, 5));
  EXPECT_EQ(contract(1).identity.generation, 5);
  EXPECT_THAT(take_ended(), IsEmpty());
}

TEST_F(RankPeersTest, WhoIsReplacedAndWhoIsOverdue) {
  ASSERT_TRUE(start_all());
  EXPECT_FALSE(peers_->is_overdue(1));  // it may still load
  for (const int rank : {1, 2, 3}) ASSERT_TRUE(peers_->take_report(rank, {.nonce = "n", .error = "", .host = ""}));
  peers_->note_group();
  EXPECT_FALSE(peers_->first_replaced());
  peers_->forget_reports();
  for (const int rank : {1, 2, 3}) {
    ASSERT_TRUE(peers_->take_report(rank, {.nonce = rank < 3 ? "n" : "new", .error = "", .host = ""}));
  }
  EXPECT_EQ(peers_->first_replaced(), 3);
  EXPECT_TRUE(peers_->is_overdue(2));
  EXPECT_FALSE(peers_->is_overdue(2));
  end_node(1);
  EXPECT_FALSE(peers_->is_overdue(3));  // it starts anew
}

TEST_F(RankPeersTest, TakesTheLauncherWithIt) {
  ASSERT_TRUE(start_all());
  peers_.reset();
  EXPECT_TRUE(asked_.is_closed);
}

}  // namespace
}  // namespace hadal
