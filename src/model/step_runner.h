// Runs the parallel loops of a step on the thread pool, node by node, and books where the time went.
// Internal to model/.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "model/node_shares.h"
#include "model/step_profile.h"

namespace hadal {

// Independent items, each a row of units (weight panels) that may run in any order on any worker of their node.
class WorkList {
 public:
  // Room for so many items; add() allocates nothing up to that.
  void reserve(size_t num_items, const NodeShares& shares);
  void clear();
  void add(int64_t num_units, const NodeShares& shares);  // cut over the nodes
  void add_on_node(int64_t num_units, int node);          // all on one node

 private:
  friend class StepRunner;
  struct Node {
    std::vector<int64_t> ends;    // [items] cumulated units of this node
    std::vector<int64_t> offset;  // [items] item's first unit of this node minus the units before the item
    int64_t total() const { return ends.empty() ? 0 : ends.back(); }
  };
  std::vector<Node> nodes_;
};

// Single-owner: the engine thread.
class StepRunner {
 public:
  StepRunner(ThreadPool& pool, NodeShares shares);

  const NodeShares& shares() const { return shares_; }
  StepProfile& profile() { return profile_; }
  const StepProfile& profile() const { return profile_; }

  // fn(begin, end, worker_idx) on equal parts of [0, num_items).
  template <typename Fn>
  void for_each(StepPhase phase, int64_t num_items, Fn&& fn) {
    if (num_items <= 0) return;
    const bool alone = num_items == 1;  // the pool is not woken
    timed(phase, alone ? 0 : 1, [&](auto&& busy) {
      pool_.parallel_for(num_items, [&](int64_t begin, int64_t end, int worker_idx) {
        busy(worker_idx, [&] { fn(begin, end, worker_idx); });
      });
    });
  }

  // fn(item_idx, unit_begin, unit_end, worker_idx) over all units of the list. Workers take ranges of their node's
  // units as they become free: large ones first, since memory is read best in long streams, single ones at the end.
  template <typename Fn>
  void run(StepPhase phase, const WorkList& list, Fn&& fn) {
    for (auto& next : next_) next.value.store(0, std::memory_order_relaxed);
    timed(phase, 1, [&](auto&& busy) {
      pool_.run([&](int worker_idx) {
        const auto node = static_cast<size_t>(shares_.node_of_worker[static_cast<size_t>(worker_idx)]);
        busy(worker_idx, [&] { run_node(list.nodes_[node], node, worker_idx, fn); });
      });
    });
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct alignas(64) Counter {
    std::atomic<int64_t> value{0};
  };
  struct alignas(64) BusyTime {
    Clock::duration value{};
  };

  static double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

  template <typename Loop>
  void timed(StepPhase phase, int num_barriers, Loop&& loop) {
    const auto started = Clock::now();
    for (BusyTime& busy : busy_) busy.value = {};
    loop([this](int worker_idx, auto&& work) {
      const auto begun = Clock::now();
      work();
      busy_[static_cast<size_t>(worker_idx)].value += Clock::now() - begun;
    });
    PhaseCost& cost = profile_.of(phase);
    for (const BusyTime& busy : busy_) cost.busy_s += seconds(busy.value);
    cost.wall_s += seconds(Clock::now() - started);
    cost.num_barriers += num_barriers;
  }

  template <typename Fn>
  void run_node(const WorkList::Node& node, size_t node_idx, int worker_idx, Fn& fn) {
    const int64_t total = node.total();
    std::atomic<int64_t>& next = next_[node_idx].value;
    for (int64_t begin = next.load(std::memory_order_relaxed); begin < total;) {
      const int64_t end = begin + std::max<int64_t>(1, (total - begin) / (4 * workers_of_node_[node_idx]));
      if (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      auto item = static_cast<size_t>(std::upper_bound(node.ends.begin(), node.ends.end(), begin) - node.ends.begin());
      for (int64_t unit = begin; unit < end; ++item) {
        const int64_t stop = std::min(end, node.ends[item]);
        if (unit < stop) fn(item, unit + node.offset[item], stop + node.offset[item], worker_idx);
        unit = std::max(unit, stop);
      }
      begin = next.load(std::memory_order_relaxed);
    }
  }

  ThreadPool& pool_;
  const NodeShares shares_;
  std::vector<int64_t> workers_of_node_;
  std::vector<Counter> next_;   // [num_nodes]
  std::vector<BusyTime> busy_;  // [num_threads]
  StepProfile profile_;
};

}  // namespace hadal
