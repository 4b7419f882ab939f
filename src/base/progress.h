// A progress bar for long work: rewritten in place on a terminal, a line every 10 s elsewhere, nothing for work that
// ends within half a second.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace hadal {

// Single-owner. Shows "loading  42 % [#####.....] 1.23 GB/s, 12 s left" on stderr.
class ProgressBar {
 public:
  // `unit` follows the rate's SI prefix: "B" gives GB/s.
  ProgressBar(std::string label, std::string unit);
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(uint64_t done, uint64_t total);
  // Ends the line with the mean rate. Idempotent.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  void show(Clock::time_point now, bool last);

  const std::string label_, unit_;
  const bool on_terminal_;
  const Clock::time_point started_ = Clock::now();
  Clock::time_point next_ = started_ + std::chrono::milliseconds(500);
  uint64_t done_ = 0, total_ = 0;
  bool shown_ = false, finished_ = false;
};

}  // namespace hadal
