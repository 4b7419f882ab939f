#include "model/step_runner.h"

#include <gtest/gtest.h>

#include <mutex>
#include <set>

namespace hadal {
namespace {

CpuTopology two_nodes() {
  CpuTopology topology;
  topology.cpus = topology.cores = {0, 1, 2, 3, 4, 5};
  topology.nodes = {{.os_idx = 0, .cpus = {0, 2, 4}}, {.os_idx = 1, .cpus = {1, 3, 5}}};
  return topology;
}

TEST(NodeShares, WorkersFollowTheirCores) {
  const CpuTopology topology = two_nodes();
  const NodeShares pinned = make_node_shares(topology, topology.cores, 4);
  EXPECT_EQ(pinned.num_nodes, 2);
  EXPECT_EQ(pinned.node_of_worker, (std::vector<int>{0, 1, 0, 1}));
  EXPECT_EQ(pinned.cpus_of_node, (std::vector<std::vector<int>>{{0, 2, 4}, {1, 3, 5}}));
  // Nodes are numbered by their workers: a node without one gets no share.
  const NodeShares on_second = make_node_shares(topology, {1, 3}, 2);
  EXPECT_EQ(on_second.num_nodes, 1);
  EXPECT_EQ(on_second.cpus_of_node.front(), topology.nodes[1].cpus);
  EXPECT_EQ(make_node_shares(topology, {}, 4).num_nodes, 1);  // not pinned
}

TEST(NodeShares, WorkersOfANodeAreNumbered) {
  const NodeShares shares{.num_nodes = 2, .node_of_worker = {0, 1, 0, 0, 1}};
  EXPECT_EQ(shares.num_workers_of(0), 3);
  EXPECT_EQ(shares.num_workers_of(1), 2);
  const int64_t ranks[] = {0, 0, 1, 2, 1};
  for (int worker = 0; worker < 5; ++worker) EXPECT_EQ(shares.rank_in_node(worker), ranks[worker]);
}

TEST(NodeShares, EveryUnitBelongsToTheShareThatHoldsIt) {
  for (const int nodes : {1, 2, 3, 8}) {
    const NodeShares shares{.num_nodes = nodes, .node_of_worker = {0}};
    for (const int64_t units : {1, 2, 7, 64, 65}) {
      for (int64_t unit = 0; unit < units; ++unit) {
        const int node = shares.node_of(unit, units);
        EXPECT_LE(shares.begin(units, node), unit);
        EXPECT_LT(unit, shares.begin(units, node + 1));
      }
    }
  }
}

// Every unit of every item runs once, on a worker of the node that holds it.
TEST(StepRunner, RunsEveryUnitOnceOnItsNode) {
  for (const NodeShares& shares :
       {NodeShares{.num_nodes = 1, .node_of_worker = {0}}, NodeShares{.num_nodes = 1, .node_of_worker = {0, 0, 0}},
        NodeShares{.num_nodes = 2, .node_of_worker = {0, 1, 1}},
        NodeShares{.num_nodes = 3, .node_of_worker = {2, 0, 1, 0}}}) {
    ThreadPool pool(shares.num_threads());
    StepRunner runner(pool, shares);
    const std::vector<int64_t> units = {5, 1, 0, 64, 2, 0, 0, 31};
    WorkList work;
    work.reserve(units.size(), shares);
    for (const bool by_item : {false, true}) {
      work.clear();
      for (size_t i = 0; i < units.size(); ++i) {
        if (by_item) {
          work.add_on_node(units[i], static_cast<int>(i) % shares.num_nodes);
        } else {
          work.add(units[i], shares);
        }
      }
      std::mutex mutex;
      std::set<std::pair<size_t, int64_t>> seen;
      runner.run(StepPhase::kDense, work, [&](size_t item, int64_t begin, int64_t end, int worker_idx) {
        const std::lock_guard lock(mutex);
        for (int64_t unit = begin; unit < end; ++unit) {
          EXPECT_TRUE(seen.insert({item, unit}).second) << item << " " << unit << " ran twice";
          const int node = by_item ? static_cast<int>(item) % shares.num_nodes : shares.node_of(unit, units[item]);
          EXPECT_EQ(shares.node_of_worker[static_cast<size_t>(worker_idx)], node);
        }
      });
      size_t total = 0;
      for (const int64_t count : units) total += static_cast<size_t>(count);
      EXPECT_EQ(seen.size(), total);
    }
  }
}

TEST(StepRunner, BooksTimeUnderThePhase) {
  ThreadPool pool(2);
  StepRunner runner(pool, {.num_nodes = 1, .node_of_worker = {0, 0}});
  const StepProfile before = runner.profile();
  runner.for_each(StepPhase::kNorms, 8, [](int64_t, int64_t, int) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
    while (std::chrono::steady_clock::now() < until) {
    }
  });
  const StepProfile spent = runner.profile() - before;
  EXPECT_GE(spent.of(StepPhase::kNorms).busy_s, 0.004);  // two workers, one range each
  EXPECT_GE(spent.of(StepPhase::kNorms).wall_s, 0.002);
  EXPECT_EQ(spent.of(StepPhase::kNorms).num_barriers, 1);
  EXPECT_EQ(spent.total().wall_s, spent.of(StepPhase::kNorms).wall_s);
}

}  // namespace
}  // namespace hadal
