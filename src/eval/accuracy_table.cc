#include "eval/accuracy_table.h"

#include <cmath>

namespace hadal {
namespace {

std::string percent(const Accuracy& accuracy) {
  return fmt::format("{:.1f} ± {:.1f}", 100 * accuracy.share, 100 * accuracy.std_error);
}

std::string solved(const AccuracyRow& row) {
  if (!row.gsm8k) return "";
  const std::string strict = percent(row.gsm8k->strict);
  if (row.gsm8k->strict.num_right == row.gsm8k->flexible.num_right) return strict;
  return strict + " (flexible " + percent(row.gsm8k->flexible) + ")";
}

std::string decibels(double db) { return std::isfinite(db) ? fmt::format("{:.1f}", db) : "exact"; }

std::string mean_kl(const DivergenceReport& divergence) {
  return fmt::format("{:.1e} ± {:.0e}", divergence.mean_kl, divergence.kl_stderr);
}

double last_db(const DivergenceReport& divergence) { return divergence.layers.back().sqnr_db; }

// The matrix that the profile changes most: its SQNR, and by how much it grew or shrank on the whole.
std::string worst_weight(const DivergenceReport& divergence) {
  if (divergence.weights.empty()) return "as stored";
  const WeightError& worst = divergence.weights.front();
  return fmt::format("{:.1f} (gain {:+.1f} %)", worst.sqnr_db, 100 * (worst.gain - 1));
}

}  // namespace

std::string accuracy_line(const AccuracyRow& row) {
  std::string line = fmt::format("{:<44} KV {:<6} {:>14} %", row.name, row.kv_cache, solved(row));
  if (row.divergence) {
    line += fmt::format(" KL {:<20} top-1 {:>6.2f} % SQNR {} dB", mean_kl(*row.divergence),
                        100 * row.divergence->top1_agreement(), decibels(last_db(*row.divergence)));
  }
  return line + "\n";
}

std::string accuracy_markdown(const std::vector<AccuracyRow>& rows) {
  std::string table =
      "| numerics | KV cache | solved, % | KL, nats a token | largest KL | top-1, % | SQNR, dB | worst weights, dB |\n"
      "|---|---|---|---|---|---|---|---|\n";
  for (const AccuracyRow& row : rows) {
    table += fmt::format("| {} | {} | {} |", row.name, row.kv_cache, solved(row));
    if (row.divergence) {
      const DivergenceReport& d = *row.divergence;
      table += fmt::format(" {} | {:.1e} | {:.2f} | {} | {} |\n", mean_kl(d), d.max_kl, 100 * d.top1_agreement(),
                           decibels(last_db(d)), worst_weight(d));
    } else {
      table += " the reference | | | | |\n";
    }
  }
  return table;
}

Json accuracy_json(const std::vector<AccuracyRow>& rows) {
  Json list = Json::array();
  for (const AccuracyRow& row : rows) {
    list.push_back({{"name", row.name},
                    {"kv_cache", row.kv_cache},
                    {"numerics", row.numerics_key},
                    {"gsm8k", row.gsm8k ? gsm8k_json(*row.gsm8k) : Json()},
                    {"kl", row.divergence ? divergence_json(*row.divergence) : Json()}});
  }
  return {{"kind", "accuracy_table"}, {"rows", std::move(list)}};
}

}  // namespace hadal
