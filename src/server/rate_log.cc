#include "server/rate_log.h"

#include <fmt/format.h>

#include <algorithm>

namespace hadal {

std::optional<std::string> RateLog::line(Clock::time_point now, const EngineStats& stats) {
  const double seconds = std::max(1e-3, std::chrono::duration<double>(now - last_time_).count());
  const EngineStats before = last_;
  last_ = stats;
  last_time_ = now;
  next_ = now + kInterval;
  const uint64_t prompt_tokens = stats.prompt_tokens - before.prompt_tokens;
  const uint64_t generation_tokens = stats.generation_tokens - before.generation_tokens;
  const uint64_t queries = stats.prefix_cache_queries - before.prefix_cache_queries;
  if (queries > 0) {
    hit_rate_ = static_cast<double>(stats.prefix_cache_hits - before.prefix_cache_hits) / static_cast<double>(queries);
  }
  const bool is_idle = stats.num_requests_running == 0 && stats.num_requests_waiting == 0;
  if (is_idle && prompt_tokens == 0 && generation_tokens == 0) return std::nullopt;
  return fmt::format(
      "Engine 000: Avg prompt throughput: {:.1f} tokens/s, Avg generation throughput: {:.1f} tokens/s, Running: {} "
      "reqs, "
      "Waiting: {} reqs, GPU KV cache usage: {:.1f}%, Prefix cache hit rate: {:.1f}%",
      static_cast<double>(prompt_tokens) / seconds, static_cast<double>(generation_tokens) / seconds,
      stats.num_requests_running, stats.num_requests_waiting, 100 * stats.kv_cache_usage, 100 * hit_rate_);
}

}  // namespace hadal
