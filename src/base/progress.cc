#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace hadal {
namespace {

constexpr int kBarCells = 30;

std::string format_rate(double per_second, const std::string& unit) {
  const char* prefixes[] = {"", "k", "M", "G", "T"};
  size_t i = 0;
  for (; per_second >= 1000 && i + 1 < std::size(prefixes); ++i) per_second /= 1000;
  return fmt::format("{:.2f} {}{}/s", per_second, prefixes[i], unit);
}

}  // namespace

ProgressBar::ProgressBar(std::string label, std::string unit)
    : label_(std::move(label)), unit_(std::move(unit)), on_terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressBar::update(uint64_t done, uint64_t total) {
  done_ = done;
  total_ = total;
  const auto now = Clock::now();
  if (finished_ || now < next_) return;
  show(now, false);
  next_ = now + (on_terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(10'000));
}

void ProgressBar::finish() {
  if (!finished_ && shown_) show(Clock::now(), true);
  finished_ = true;
}

void ProgressBar::show(Clock::time_point now, bool last) {
  const double elapsed_s = std::max(1e-9, std::chrono::duration<double>(now - started_).count());
  const double share = total_ > 0 ? std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_)) : 0;
  const double rate = static_cast<double>(done_) / elapsed_s;
  const int filled = static_cast<int>(share * kBarCells);
  const double left_s = rate > 0 ? static_cast<double>(total_ - std::min(done_, total_)) / rate : 0;
  const std::string time = last ? fmt::format("{:.1f} s", elapsed_s) : fmt::format("{:.0f} s left", left_s);
  std::fprintf(stderr, "%s%s %3.0f %% [%s%s] %s, %s%s", on_terminal_ ? "\r\033[K" : "", label_.c_str(), 100 * share,
               std::string(static_cast<size_t>(filled), '#').c_str(),
               std::string(static_cast<size_t>(kBarCells - filled), '.').c_str(), format_rate(rate, unit_).c_str(),
               time.c_str(), on_terminal_ && !last ? "" : "\n");
  std::fflush(stderr);
  shown_ = true;
}

}  // namespace hadal
