#include "base/metrics.h"

#include <gtest/gtest.h>

#include <thread>

namespace hadal {
namespace {

TEST(Metrics, TextOfEveryKindByteForByte) {
  MetricsRegistry registry;
  registry.counter("jobs_total", "Jobs \\ done.\nAll.", {{"kind", "a\"b\\c\nd"}}).add(3);
  registry.counter("jobs_total", "ignored", {{"kind", "z"}}).add(0.5);
  registry.gauge("free", "Free.").set(-2.25);
  Histogram& latency = registry.histogram("latency_seconds", "Latency.", {0.5, 1, 2.5}, {{"m", "x"}});
  for (const double value : {0.5, 0.75, 3.0}) latency.observe(value);
  registry.summary("size_bytes", "Size.").observe(10);
  EXPECT_EQ(registry.text(),
            "# HELP jobs_total Jobs \\\\ done.\\nAll.\n"
            "# TYPE jobs_total counter\n"
            "jobs_total{kind=\"a\\\"b\\\\c\\nd\"} 3\n"
            "jobs_total{kind=\"z\"} 0.5\n"
            "# HELP free Free.\n"
            "# TYPE free gauge\n"
            "free -2.25\n"
            "# HELP latency_seconds Latency.\n"
            "# TYPE latency_seconds histogram\n"
            "latency_seconds_bucket{m=\"x\",le=\"0.5\"} 1\n"
            "latency_seconds_bucket{m=\"x\",le=\"1.0\"} 2\n"
            "latency_seconds_bucket{m=\"x\",le=\"2.5\"} 2\n"
            "latency_seconds_bucket{m=\"x\",le=\"+Inf\"} 3\n"
            "latency_seconds_count{m=\"x\"} 3\n"
            "latency_seconds_sum{m=\"x\"} 4.25\n"
            "# HELP size_bytes Size.\n"
            "# TYPE size_bytes summary\n"
            "size_bytes_count 1\n"
            "size_bytes_sum 10\n");
}

TEST(Metrics, SameNameAndLabelsAreOneMetric) {
  MetricsRegistry registry;
  EXPECT_EQ(&registry.counter("c", "", {{"a", "1"}}), &registry.counter("c", "", {{"a", "1"}}));
  EXPECT_NE(&registry.counter("c", "", {{"a", "1"}}), &registry.counter("c", "", {{"a", "2"}}));
}

TEST(Metrics, ConcurrentIncrementsLoseNothing) {
  MetricsRegistry registry;
  Counter& counter = registry.counter("c", "");
  Histogram& histogram = registry.histogram("h", "", {1, 2});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20000; ++i) {
        counter.add();
        histogram.observe(i % 3);
        if (i % 5000 == 0) registry.text();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(counter.value(), 80000);
  EXPECT_EQ(histogram.count(), 80000u);
  EXPECT_EQ(histogram.sum(), 4 * (6666 * 3.0 + 1));  // 0+1+2 in 6,666 rounds, then 0 and 1
}

TEST(Metrics, ScrapeRunsUpdatesFirst) {
  MetricsRegistry registry;
  Gauge& gauge = registry.gauge("g", "G.");
  registry.on_scrape([&gauge] { gauge.set(7); });
  EXPECT_NE(registry.text().find("\ng 7\n"), std::string::npos);
}

TEST(Metrics, OneTwoFive) {
  EXPECT_EQ(one_two_five_bounds(100), (std::vector<double>{1, 2, 5, 10, 20, 50, 100}));
  EXPECT_EQ(one_two_five_bounds(60), (std::vector<double>{1, 2, 5, 10, 20, 50}));
  EXPECT_TRUE(one_two_five_bounds(0).empty());
}

}  // namespace
}  // namespace hadal
