#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <vector>

namespace hadal {
namespace {

TEST(ThreadPool, RunCallsEveryWorkerOnce) {
  for (const int num_threads : {1, 2, 5}) {
    ThreadPool pool(num_threads);
    std::vector<int> calls(static_cast<size_t>(num_threads), 0);
    for (int round = 0; round < 100; ++round)
      pool.run([&](int worker_idx) { ++calls[static_cast<size_t>(worker_idx)]; });
    EXPECT_EQ(calls, std::vector<int>(static_cast<size_t>(num_threads), 100));
  }
}

TEST(ThreadPool, OneThreadRunsInline) {
  ThreadPool pool(1);
  const std::thread::id caller = std::this_thread::get_id();
  std::vector<std::pair<int64_t, int64_t>> ranges;
  pool.parallel_for(7, [&](int64_t begin, int64_t end, int worker_idx) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    EXPECT_EQ(worker_idx, 0);
    ranges.emplace_back(begin, end);
  });
  EXPECT_EQ(ranges, (std::vector<std::pair<int64_t, int64_t>>{{0, 7}}));
}

class ParallelFor : public testing::TestWithParam<std::tuple<int, int64_t, int64_t>> {};

TEST_P(ParallelFor, CoversEveryItemOnceAndPublishesWrites) {
  const auto [num_threads, num_items, chunk] = GetParam();
  ThreadPool pool(num_threads);
  // Plain ints: a missing barrier shows as a wrong count, or as a race under the thread sanitizer.
  std::vector<int> counts(static_cast<size_t>(num_items), 0);
  for (int round = 1; round <= 50; ++round) {
    pool.parallel_for(
        num_items,
        [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) ++counts[static_cast<size_t>(i)];
        },
        chunk);
    ASSERT_EQ(counts, std::vector<int>(static_cast<size_t>(num_items), round));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ParallelFor,
                         testing::Combine(testing::Values(1, 2, 3, 8), testing::Values(0, 1, 2, 7, 1000),
                                          testing::Values(0, 1, 16)));

TEST(ThreadPool, WakesParkedWorkers) {
  // Without any polling every job goes through the park path.
  ThreadPool pool({.num_threads = 3, .pin_cpus = {}, .spin_rounds = 0});
  std::atomic<int> total{0};
  for (int round = 0; round < 200; ++round) pool.run([&](int) { total.fetch_add(1); });
  EXPECT_EQ(total.load(), 600);
}

TEST(ThreadPool, PinsWorkersButNotTheCaller) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &before)) ++cpu;
  ThreadPool pool({.num_threads = 2, .pin_cpus = {cpu}});
  pool.run([&](int worker_idx) {
    cpu_set_t mask;
    ASSERT_EQ(sched_getaffinity(0, sizeof(mask), &mask), 0);
    if (worker_idx == 0) {
      EXPECT_TRUE(CPU_EQUAL(&mask, &before));
    } else {
      EXPECT_EQ(CPU_COUNT(&mask), 1);
      EXPECT_TRUE(CPU_ISSET(cpu, &mask));
    }
  });
}

}  // namespace
}  // namespace hadal
