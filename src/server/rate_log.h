// The line with rates that vLLM's server writes every ten seconds while it has work, in the words of its V1 engine.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "engine/engine.h"

namespace hadal {

class RateLog {  // single-owner: one IO thread
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kInterval{10};

  // Whether stats have to be read for line(): at most once an interval.
  bool is_due(Clock::time_point now) const { return now >= next_; }

  // The rates since the last call; nothing when nothing ran since then. Tokens found in the prefix cache are not
  // counted as prompt tokens. The hit rate is of the last interval that looked anything up.
  std::optional<std::string> line(Clock::time_point now, const EngineStats& stats);

 private:
  Clock::time_point next_ = Clock::now() + kInterval;
  Clock::time_point last_time_ = Clock::now();
  EngineStats last_;
  double hit_rate_ = 0;
};

}  // namespace hadal
