#include <fmt/ranges.h>

#include <array>
#include <charconv>
#include <iterator>

#include "quant/measurement_report.h"

namespace hadal {
namespace {

constexpr size_t kMaxShown = 40;  // outliers, names; the JSON has all

using Out = std::back_insert_iterator<std::string>;

std::string where(const MeasuredOutlier& outlier) {
  std::string out = fmt::format("layer {}", outlier.layer);
  if (outlier.rank) out += fmt::format(", rank {}", *outlier.rank);
  if (outlier.local_expert) out += fmt::format(", local expert {}", *outlier.local_expert);
  if (outlier.global_expert) out += fmt::format(" (expert {})", *outlier.global_expert);
  return out;
}

void print_kinds(Out out, const MeasurementReport& report) {
  fmt::format_to(out, "\n{:<72} {:>6} {:>12} {:>12} {:>12}\n", "ranges (largest magnitude)", "count", "min", "median",
                 "max");
  for (const MeasuredKind& kind : report.kinds) {
    fmt::format_to(out, "{:<72} {:>6} {:>12} {:>12} {:>12}\n", kind.name, kind.count, plain_decimal(kind.min),
                   plain_decimal(kind.median), plain_decimal(kind.max));
  }
}

void print_outlier(Out out, const MeasuredOutlier& outlier) {
  fmt::format_to(out, "\n{}  {} {}\n  {}{}\n", plain_decimal(outlier.value), outlier.module, outlier.field,
                 where(outlier), outlier.is_unused ? "; the combined output, not quantised by the kernel" : "");
  fmt::format_to(out, "  {:<34} {:>14} {:>16} {:>14} {:>14}\n", "method", "scale", "saturates above", "coarse below",
                 "zero up to");
  for (const ScaleEffect& effect : outlier.effects) {
    fmt::format_to(out, "  {:<34} {:>14} {:>16} {:>14} {:>14}{}\n", effect.method, plain_decimal(effect.scale),
                   plain_decimal(effect.saturates_above), plain_decimal(effect.coarse_below),
                   plain_decimal(effect.zero_below), effect.saturates ? "  SATURATES" : "");
  }
}

void print_names(Out out, const char* title, const std::vector<std::string>& names) {
  if (names.empty()) return;
  fmt::format_to(out, "\n{}: {}\n", title, names.size());
  for (size_t i = 0; i < names.size() && i < kMaxShown; ++i) fmt::format_to(out, "  {}\n", names[i]);
  if (names.size() > kMaxShown) fmt::format_to(out, "  and {} more\n", names.size() - kMaxShown);
}

Json effect_json(const ScaleEffect& effect) {
  return {{"method", effect.method},
          {"scale", plain_decimal(effect.scale)},
          {"saturates_above", plain_decimal(effect.saturates_above)},
          {"coarse_below", plain_decimal(effect.coarse_below)},
          {"zero_up_to", plain_decimal(effect.zero_below)},
          {"saturates", effect.saturates}};
}

Json outlier_json(const MeasuredOutlier& outlier) {
  const auto number = [](const std::optional<int64_t>& value) { return value ? Json(*value) : Json(nullptr); };
  Json effects = Json::array();
  for (const ScaleEffect& effect : outlier.effects) effects.push_back(effect_json(effect));
  return {{"module", outlier.module},
          {"field", outlier.field},
          {"value", plain_decimal(outlier.value)},
          {"layer", outlier.layer},
          {"rank", number(outlier.rank)},
          {"local_expert", number(outlier.local_expert)},
          {"global_expert", number(outlier.global_expert)},
          {"unused_by_kernel", outlier.is_unused},
          {"methods", std::move(effects)}};
}

}  // namespace

std::string plain_decimal(float value) {
  std::array<char, 64> buffer;  // the longest float has 39 digits before the point, or 45 and a few after it
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed).ptr;
  return {buffer.data(), end};
}

std::string measurement_report_text(const MeasurementReport& report) {
  std::string text;
  const Out out(text);
  const char* device = report.device == FpRange::kGaudi2 ? "Gaudi 2" : "Gaudi 3";
  fmt::format_to(out, "{}\n{} values, {} of them 0 (dummy inputs of experts' matrices not counted)\n",
                 fmt::join(report.sources, "\n"), report.num_values, report.num_zeros);
  print_kinds(out, report);
  fmt::format_to(out, "\nrelations\n  {}\n", fmt::join(report.checks, "\n  "));
  fmt::format_to(out, "\nactivations that would saturate on {}\n", device);
  for (const MethodSummary& method : report.methods) {
    fmt::format_to(out, "  {:<34} {:>6}\n", method.method, method.num_saturated);
  }
  fmt::format_to(out, "\noutliers above {}, the most a hardware-aligned scale can hold: {}\n",
                 plain_decimal(report.outlier_limit), report.outliers.size());
  for (size_t i = 0; i < report.outliers.size() && i < kMaxShown; ++i) print_outlier(out, report.outliers[i]);
  if (report.outliers.size() > kMaxShown) fmt::format_to(out, "\nand {} more\n", report.outliers.size() - kMaxShown);
  print_names(out, "experts without a token", report.zero_experts);
  print_names(out, "modules without a meaning here", report.other_modules);
  return text;
}

Json measurement_report_json(const MeasurementReport& report) {
  Json kinds = Json::array(), outliers = Json::array(), methods = Json::array();
  for (const MeasuredKind& kind : report.kinds) {
    kinds.push_back({{"kind", kind.name},
                     {"count", kind.count},
                     {"min", plain_decimal(kind.min)},
                     {"median", plain_decimal(kind.median)},
                     {"max", plain_decimal(kind.max)}});
  }
  for (const MeasuredOutlier& outlier : report.outliers) outliers.push_back(outlier_json(outlier));
  for (const MethodSummary& method : report.methods) {
    methods.push_back({{"method", method.method}, {"saturated", method.num_saturated}});
  }
  return {{"device", report.device == FpRange::kGaudi2 ? "gaudi2" : "gaudi3"},
          {"sources", report.sources},
          {"values", report.num_values},
          {"zeros", report.num_zeros},
          {"kinds", std::move(kinds)},
          {"relations", report.checks},
          {"methods", std::move(methods)},
          {"outlier_limit", plain_decimal(report.outlier_limit)},
          {"outliers", std::move(outliers)},
          {"zero_experts", report.zero_experts},
          {"other_modules", report.other_modules}};
}

}  // namespace hadal
