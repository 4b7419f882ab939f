// Numerics profiles side by side: the table of docs/accuracy.md.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "eval/divergence.h"
#include "eval/gsm8k_eval.h"

namespace hadal {

struct AccuracyRow {
  std::string name, kv_cache;  // as the table shows them
  std::string numerics_key;
  std::optional<Gsm8kReport> gsm8k;
  std::optional<DivergenceReport> divergence;  // from the reference; nothing for the reference itself
};

// One line about a row, for people who wait.
std::string accuracy_line(const AccuracyRow& row);
// Problems solved (strict and flexible where they differ) with standard error, mean KL, top-1 agreement, SQNR of the
// residual stream behind the last layer, and of the matrix that the profile changes most.
std::string accuracy_markdown(const std::vector<AccuracyRow>& rows);
Json accuracy_json(const std::vector<AccuracyRow>& rows);

}  // namespace hadal
