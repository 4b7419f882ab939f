// Charts of a serving benchmark, as SVG.
#pragma once

#include <string>
#include <vector>

#include "bench/serve_metrics.h"

namespace hadal {

// One run: output tokens by second, a line for each request (waiting for its first token, then generating), histograms
// of time to first token and inter-token latency.
std::string plot_serve_run(const ServeRun& run, const ServeSummary& summary, const std::string& title,
                           const std::string& subtitle);

struct ServePoint {
  std::string label;  // "32" or "4.0 req/s"
  ServeSummary summary;
};

// Several runs: latency against throughput, one panel for time to first token, one for time per output token; median
// and the highest percentile of each.
std::string plot_serve_sweep(const std::vector<ServePoint>& points, const std::string& title,
                             const std::string& subtitle);

}  // namespace hadal
