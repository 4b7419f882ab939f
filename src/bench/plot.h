// A chart of a benchmark's rows, as SVG.
#pragma once

#include <string>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

// One line for each row with tokens per second: on the left its bar with the range of the measurements and a mark where
// the machine's ceiling is, prefill and decode rows each on their own scale; on the right where its time goes.
// Errors: kCorrupt as read_report(), or when no row can be drawn.
Expected<std::string> plot_report(const Json& json);

// The distance between axis ticks: 1, 2 or 5 times a power of ten, for at most `most` of them up to max. max > 0.
double tick_step(double max, int most);

}  // namespace hadal
