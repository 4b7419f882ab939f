// The line with rates: the words that tools look for, the arithmetic, and silence when idle.
#include "server/rate_log.h"

#include <gtest/gtest.h>

namespace hadal {
namespace {

using std::chrono::seconds;

TEST(RateLog, RatesAreOfTheIntervalAndIdleIsQuiet) {
  RateLog log;
  const auto start = RateLog::Clock::now();
  EXPECT_FALSE(log.is_due(start));
  EXPECT_TRUE(log.is_due(start + RateLog::kInterval + seconds(1)));
  EngineStats stats;
  EXPECT_FALSE(log.line(start, stats).has_value());
  stats.num_requests_running = 3;
  stats.num_requests_waiting = 2;
  stats.kv_cache_usage = 0.125;
  stats.prompt_tokens = 1000;
  stats.generation_tokens = 250;
  stats.prefix_cache_queries = 400;
  stats.prefix_cache_hits = 100;
  EXPECT_EQ(
      log.line(start + seconds(10), stats).value(),
      "Engine 000: Avg prompt throughput: 100.0 tokens/s, Avg generation throughput: 25.0 tokens/s, Running: 3 reqs, "
      "Waiting: 2 reqs, GPU KV cache usage: 12.5%, Prefix cache hit rate: 25.0%");
  EXPECT_FALSE(log.is_due(start + seconds(19)));
  stats.num_requests_running = stats.num_requests_waiting = 0;
  stats.kv_cache_usage = 0;
  stats.generation_tokens += 50;  // the last ones of an interval in which all ended
  EXPECT_EQ(
      log.line(start + seconds(20), stats).value(),
      "Engine 000: Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 5.0 tokens/s, Running: 0 reqs, "
      "Waiting: 0 reqs, GPU KV cache usage: 0.0%, Prefix cache hit rate: 25.0%");
  EXPECT_FALSE(log.line(start + seconds(30), stats).has_value());
  stats.num_requests_waiting = 1;  // work, though nothing moves
  EXPECT_TRUE(log.line(start + seconds(40), stats).has_value());
}

}  // namespace
}  // namespace hadal
