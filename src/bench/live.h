// Where a running server's steps spend their time: the difference of two scrapes of its /metrics.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/json.h"
#include "base/status.h"
#include "bench/report.h"
#include "model/step_profile.h"

namespace hadal {

// One scrape, in Prometheus' text format. Foreign bytes.
class MetricsSample {
 public:
  // Errors: kCorrupt naming the line. Lines that are not samples are skipped, as are timestamps.
  static Expected<MetricsSample> parse(std::string_view text);

  // By name and labels as written: `hadal_step_flops_total{phase="dense"}`.
  std::optional<double> find(const std::string& series) const;
  // The sum over all label sets of a name; 0 when there are none.
  double sum(std::string_view name) const;

 private:
  std::unordered_map<std::string, double> values_;
};

struct LiveReport {
  double seconds = 0;               // between the scrapes
  double running = 0, waiting = 0;  // at the second one
  double generated_tokens = 0, prompt_tokens = 0;
  double num_steps = 0, step_seconds = 0, planning_seconds = 0, sampling_seconds = 0;
  StepProfile profile;
  LossShares shares{};  // of step_seconds
};

// `barrier_s`: cost of an empty parallel loop, 0 when unknown (barriers then count as idle).
// Errors: kUnsupported when the server has no such metrics; kUnavailable when they went back (it was restarted).
Expected<LiveReport> make_live_report(const MetricsSample& first, const MetricsSample& second, double seconds,
                                      double barrier_s);

// With `ceiling`, the shares of it as well.
std::string live_text(const LiveReport& report, const std::optional<StepCeiling>& ceiling);
Json live_json(const LiveReport& report, const std::optional<StepCeiling>& ceiling);

}  // namespace hadal
