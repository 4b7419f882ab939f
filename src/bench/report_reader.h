// Reads back what a benchmark wrote with --json: the parts that comparing and plotting need. Foreign bytes.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "bench/report.h"

namespace hadal {

struct ReportRow {
  std::string name;
  std::string group;  // "prefill", "decode", ...: rows that share a scale
  std::optional<Spread> seconds, tokens_per_s;
  std::optional<double> gb_per_s, gflops, ceiling_share, target_share;
  std::optional<LossShares> shares;
};

struct Report {
  std::vector<ReportRow> rows;
  // "flags.isa" -> "avx512-bf16": what was measured, for comparing.
  std::vector<std::pair<std::string, std::string>> facts;
  std::string title;     // "models/nano"
  std::string subtitle;  // machine and threads
};

// Errors: kCorrupt naming the row and field.
Expected<Report> read_report(const Json& json);

}  // namespace hadal
