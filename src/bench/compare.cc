#include "bench/compare.h"

#include <algorithm>
#include <cmath>

#include "bench/report_reader.h"

namespace hadal {
namespace {

const ReportRow* find_row(const Report& report, const std::string& name) {
  const auto found =
      std::find_if(report.rows.begin(), report.rows.end(), [&](const ReportRow& row) { return row.name == name; });
  return found == report.rows.end() ? nullptr : &*found;
}

std::string differences(const Report& a, const Report& b) {
  std::string text;
  for (const auto& fact : a.facts) {
    const auto other = std::find_if(b.facts.begin(), b.facts.end(),
                                    [&](const auto& candidate) { return candidate.first == fact.first; });
    if (other != b.facts.end() && other->second != fact.second) {
      text += fmt::format("{:<32} {}  |  {}\n", fact.first, fact.second, other->second);
    }
  }
  return text.empty() ? text : text + "\n";
}

// What a row's speed is: tokens per second, or GFLOP/s, or runs per second.
Spread speed_of(const ReportRow& row) {
  if (row.tokens_per_s) return *row.tokens_per_s;
  if (!row.seconds || row.seconds->min <= 0) return {};
  const double work = row.gflops ? *row.gflops * row.seconds->median : 1;
  return {work / row.seconds->median, work / row.seconds->max, work / row.seconds->min};
}

std::string percent(const std::optional<double>& share) { return share ? fmt::format("{:.1f}", 100 * *share) : "-"; }

// The part of the time that changed most: "attention +4.2".
std::string largest_shift(const ReportRow& a, const ReportRow& b) {
  if (!a.shares || !b.shares) return "";
  size_t largest = 0;
  const auto shift = [&](size_t i) { return (*b.shares)[i] - (*a.shares)[i]; };
  for (size_t i = 1; i < kNumLosses; ++i) {
    if (std::fabs(shift(i)) > std::fabs(shift(largest))) largest = i;
  }
  return fmt::format("{} {:+.1f}", kLossNames[largest], 100 * shift(largest));
}

std::string pair_line(const ReportRow& a, const ReportRow& b) {
  const Spread speed_a = speed_of(a), speed_b = speed_of(b);
  const bool overlaps = speed_a.min <= speed_b.max && speed_b.min <= speed_a.max;
  const double ratio = speed_a.median > 0 ? speed_b.median / speed_a.median : 0;
  return fmt::format("{:<40} {:>10.2f} {:>10.2f} {:>7.3f}{} {:>7} {:>7} {:>7} {:>7}  {}\n", a.name, speed_a.median,
                     speed_b.median, ratio, overlaps ? '~' : ' ', percent(a.ceiling_share), percent(b.ceiling_share),
                     percent(a.target_share), percent(b.target_share), largest_shift(a, b));
}

}  // namespace

Expected<std::string> compare_reports(const Json& json_a, const Json& json_b) {
  auto a = read_report(json_a);
  if (!a) return forward_error(std::move(a), "A");
  auto b = read_report(json_b);
  if (!b) return forward_error(std::move(b), "B");
  std::string text = differences(*a, *b);
  text += fmt::format("{:<40} {:>10} {:>10} {:>7}  {:>7} {:>7} {:>7} {:>7}  {}\n", "speed, % of ceiling and target",
                      "A", "B", "B/A", "ceil A", "ceil B", "targ A", "targ B", "largest shift, points");
  std::string missing;
  for (const ReportRow& row : a->rows) {
    if (const ReportRow* other = find_row(*b, row.name)) {
      text += pair_line(row, *other);
    } else {
      missing += fmt::format("only in A: {}\n", row.name);
    }
  }
  for (const ReportRow& row : b->rows) {
    if (find_row(*a, row.name) == nullptr) missing += fmt::format("only in B: {}\n", row.name);
  }
  return text + missing;
}

}  // namespace hadal
