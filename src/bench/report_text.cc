// The report as JSON and as a table.
#include "bench/report.h"

#include <algorithm>
#include <array>

namespace hadal {
namespace {

Json row_json(const BenchRow& row) {
  Json shares = Json::object();
  for (size_t i = 0; i < kNumLosses; ++i) shares[kLossNames[i]] = row.shares[i];
  return {{"name", row_name(row.shape)},
          {"kind", row.shape.kind == RowKind::kPrefill ? "prefill" : "decode"},
          {"tokens", row.shape.tokens},
          {"batch", row.shape.batch},
          {"depth", row.shape.depth},
          {"repetitions", row.repetitions},
          {"seconds", spread_json(row.seconds)},
          {"tokens_per_s", spread_json(row.tokens_per_s)},
          {"weight_bytes", row.weight_bytes},
          {"kv_bytes", row.kv_bytes},
          {"flops", row.flops},
          {"gb_per_s", row.gb_per_s},
          {"gflops", row.gflops},
          {"read_bandwidth", row.read_bytes_per_s},
          {"ceiling_share", row.ceiling_share},
          {"target_share", row.target_share},
          {"target_goal", target_goal(row.shape)},
          {"shares", std::move(shares)}};
}

Json load_json(const LoadFacts& load) {
  return {{"seconds", load.seconds},
          {"checkpoint_bytes", load.checkpoint_bytes},
          {"bytes_per_s", load.seconds > 0 ? static_cast<double>(load.checkpoint_bytes) / load.seconds : 0},
          {"first_token_s", load.first_token_s},
          {"first_token_prompt", load.first_token_prompt},
          {"resident_bytes", load.memory.resident_bytes},
          {"peak_resident_bytes", load.memory.peak_resident_bytes},
          {"weight_bytes", load.weight_bytes},
          {"kv_bytes", load.kv_bytes},
          {"workspace_bytes", load.workspace_bytes}};
}

double gb(uint64_t bytes) { return 1e-9 * static_cast<double>(bytes); }

std::string bytes_text(uint64_t bytes) {
  return bytes < 1'000'000'000 ? fmt::format("{:.1f} MB", 1e3 * gb(bytes)) : fmt::format("{:.2f} GB", gb(bytes));
}

// Four significant figures or so, in nine columns at most.
std::string rate(double value) { return fmt::format("{:.{}f}", value, value < 10 ? 2 : value < 1000 ? 1 : 0); }

// Columns of losses. Communication has one only where there was some: the table is as wide as a screen.
constexpr std::array<const char*, kNumLosses> kLossColumns = {"att%",  "exp%",  "den%",  "norm%", "rout%",
                                                              "head%", "samp%", "comm%", "barr%", "idle%"};

bool has_column(size_t loss, bool communicates) { return loss != kCommLoss || communicates; }

std::string table_row(const BenchRow& row, bool communicates) {
  const double goal = target_goal(row.shape);
  std::string line =
      fmt::format("{:<17}{:>7} {:>14} {:>8} {:>5.1f} {:>5.1f} {:>7.1f} {:>5.1f} {:>5.1f} {:>4}", row_name(row.shape),
                  rate(row.tokens_per_s.median), rate(row.tokens_per_s.min) + "-" + rate(row.tokens_per_s.max),
                  rate(1e3 * row.seconds.median), row.gb_per_s, 1e-9 * row.read_bytes_per_s, row.gflops,
                  100 * row.ceiling_share, 100 * row.target_share, goal > 0 ? fmt::format("{:.0f}", 100 * goal) : "-");
  for (size_t i = 0; i < kNumLosses; ++i) {
    if (has_column(i, communicates)) line += fmt::format(" {:>5.1f}", 100 * row.shares[i]);
  }
  return line + "\n";
}

}  // namespace

Json report_json(const BenchReport& report) {
  Json rows = Json::array();
  for (const BenchRow& row : report.rows) rows.push_back(row_json(row));
  return {{"kind", "latency"},
          {"machine", host_json(report.host)},
          {"ceilings", ceilings_to_json(report.ceilings)},
          {"multiply_format", report.multiply_format},
          {"model", report.model},
          {"flags", report.flags},
          {"load", load_json(report.load)},
          {"rows", std::move(rows)},
          {"others_cores", report.others_cores},
          {"notes", report.notes}};
}

std::string report_table(const BenchReport& report) {
  const LoadFacts& load = report.load;
  const double multiply = report.multiply_format == "bf16" ? report.ceilings.bf16_flops : report.ceilings.fp32_flops;
  std::string text = fmt::format("machine   {}, {} threads; best read {:.1f} GB/s, {} multiply {:.0f} GFLOP/s\n",
                                 report.host.cpu_model, report.ceilings.num_threads,
                                 1e-9 * report.ceilings.read_bytes_per_s, report.multiply_format, 1e-9 * multiply);
  text += fmt::format(
      "load      {} in {:.2f} s = {:.2f} GB/s; first token {:.2f} s after process start ({} prompt "
      "tokens)\n",
      bytes_text(load.checkpoint_bytes), load.seconds,
      load.seconds > 0 ? gb(load.checkpoint_bytes) / load.seconds : 0.0, load.first_token_s, load.first_token_prompt);
  text += fmt::format("memory    {} resident, peak {}: weights {}, KV cache {}, workspace {}\n\n",
                      bytes_text(load.memory.resident_bytes), bytes_text(load.memory.peak_resident_bytes),
                      bytes_text(load.weight_bytes), bytes_text(load.kv_bytes), bytes_text(load.workspace_bytes));
  const bool communicates = std::any_of(report.rows.begin(), report.rows.end(),
                                        [](const BenchRow& row) { return row.shares[kCommLoss] > 0; });
  text += fmt::format("{:<17}{:>7} {:>14} {:>8} {:>5} {:>5} {:>7} {:>5} {:>5} {:>4}", "", "tok/s", "min-max", "ms/step",
                      "GB/s", "of", "GFLOP/s", "ceil%", "targ%", "goal");
  for (size_t i = 0; i < kNumLosses; ++i) {
    if (has_column(i, communicates)) text += fmt::format(" {:>5}", kLossColumns[i]);
  }
  text += "\n";
  for (const BenchRow& row : report.rows) text += table_row(row, communicates);
  return text;
}

}  // namespace hadal
