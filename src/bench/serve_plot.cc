#include "bench/serve_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "bench/plot.h"
#include "bench/svg.h"

namespace hadal {
namespace {

// Okabe and Ito's, for people with colour blindness too.
constexpr const char* kBlue = "#0072b2";
constexpr const char* kOrange = "#e69f00";
constexpr const char* kRed = "#d55e00";
constexpr const char* kGrey = "#c8c8c8";
constexpr const char* kGridColor = "#dddddd";
constexpr const char* kSoftText = "#666666";

// Pixels.
constexpr double kWidth = 1120, kLeft = 80, kRight = 1090, kHeader = 90;
constexpr double kPanelHeight = 180, kPanelGap = 84;
constexpr double kHalf = 460;  // width of each of two panels side by side
constexpr double kLane = 4;
constexpr size_t kMostLanes = 200, kNumBins = 40;

std::string tick_text(double value, double step) {
  return fmt::format("{:.{}f}", value, step < 0.1 ? 2 : step < 1 ? 1 : 0);
}

// Axes of a panel whose data go from 0 to max in both directions.
class Panel {
 public:
  Panel(SvgWriter& svg, double left, double top, double width, double height, double max_x, double max_y)
      : svg_(svg),
        left_(left),
        top_(top),
        width_(width),
        height_(height),
        max_x_(max_x > 0 ? max_x : 1),
        max_y_(max_y > 0 ? 1.05 * max_y : 1) {}

  double x(double value) const { return left_ + width_ * std::clamp(value / max_x_, 0.0, 1.0); }
  double y(double value) const { return top_ + height_ * (1 - std::clamp(value / max_y_, 0.0, 1.0)); }

  void axes(const std::string& title, const std::string& x_label, bool with_y = true) {
    svg_.text(left_, top_ - 10, title, TextAnchor::kStart, 14, "#222222", true);
    const double x_step = tick_step(max_x_, 10), y_step = tick_step(max_y_, 5);
    for (int i = 0; x_step * i <= max_x_ * 1.0001; ++i) {
      svg_.line(x(x_step * i), top_, x(x_step * i), top_ + height_, kGridColor);
      svg_.text(x(x_step * i), top_ + height_ + 15, tick_text(x_step * i, x_step), TextAnchor::kMiddle, 11, kSoftText);
    }
    for (int i = 0; with_y && y_step * i <= max_y_ * 1.0001; ++i) {
      svg_.line(left_, y(y_step * i), left_ + width_, y(y_step * i), kGridColor);
      svg_.text(left_ - 6, y(y_step * i) + 4, tick_text(y_step * i, y_step), TextAnchor::kEnd, 11, kSoftText);
    }
    svg_.text(left_ + width_ / 2, top_ + height_ + 32, x_label, TextAnchor::kMiddle, 12);
  }

 private:
  SvgWriter& svg_;
  const double left_, top_, width_, height_, max_x_, max_y_;
};

void draw_titles(SvgWriter& svg, const std::string& title, const std::string& subtitle) {
  svg.text(24, 32, title, TextAnchor::kStart, 18, "#222222", true);
  svg.text(24, 54, subtitle, TextAnchor::kStart, 12, kSoftText);
}

void draw_throughput(SvgWriter& svg, const std::vector<double>& tokens, double top) {
  const double seconds = static_cast<double>(tokens.size());
  Panel panel(svg, kLeft, top, kRight - kLeft, kPanelHeight, seconds, *std::max_element(tokens.begin(), tokens.end()));
  panel.axes("Output tokens in each second", "seconds since the first request");
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto from = static_cast<double>(i);
    svg.rect(panel.x(from), panel.y(tokens[i]), std::max(0.5, 0.95 * (panel.x(from + 1) - panel.x(from))),
             panel.y(0) - panel.y(tokens[i]), kBlue, fmt::format("second {}: {:.0f} tokens", i, tokens[i]));
  }
}

size_t num_lanes(const ServeRun& run) { return std::min(run.records.size(), kMostLanes); }
double lanes_height(const ServeRun& run) { return kLane * static_cast<double>(num_lanes(run)); }

void draw_requests(SvgWriter& svg, const ServeRun& run, double seconds, double top) {
  Panel panel(svg, kLeft, top, kRight - kLeft, lanes_height(run), seconds, 1);
  const std::string shown = num_lanes(run) < run.records.size() ? fmt::format(", the first {}", kMostLanes) : "";
  panel.axes("Requests" + shown, "seconds since the first request", false);
  svg.rect(kRight - 330, top - 21, 12, 12, kGrey);
  svg.text(kRight - 313, top - 11, "until the first token", TextAnchor::kStart, 11);
  svg.rect(kRight - 190, top - 21, 12, 12, kBlue);
  svg.text(kRight - 173, top - 11, "generating", TextAnchor::kStart, 11);
  svg.rect(kRight - 90, top - 21, 12, 12, kRed);
  svg.text(kRight - 73, top - 11, "failed", TextAnchor::kStart, 11);
  for (size_t i = 0; i < num_lanes(run); ++i) {
    const ServeRecord& record = run.records[i];
    const double y = top + kLane * static_cast<double>(i);
    const double start = panel.x(record.start_s), first = panel.x(record.start_s + record.ttft_s);
    const double end = panel.x(record.start_s + record.latency_s);
    if (!record.success) {
      svg.rect(start, y, std::max(3.0, end - start), kLane - 1, kRed, fmt::format("request {}: {}", i, record.error));
      continue;
    }
    svg.rect(start, y, first - start, kLane - 1, kGrey);
    svg.rect(first, y, std::max(0.5, end - first), kLane - 1, kBlue,
             fmt::format("request {}: first token after {:.0f} ms, {} tokens in {:.2f} s", i, 1e3 * record.ttft_s,
                         record.num_output_tokens, record.latency_s));
  }
}

// Values above the 99.5th percentile are counted in the last bar, so that one straggler does not flatten the rest.
void draw_histogram(SvgWriter& svg, std::vector<double> values_ms, const std::string& title, double left, double top) {
  std::sort(values_ms.begin(), values_ms.end());
  const double highest = values_ms.empty() ? 1 : percentile_of(values_ms, 99.5);
  const double step = tick_step(highest > 0 ? highest : 1, 10);
  const double max = step * std::ceil((highest > 0 ? highest : 1) / step);
  const double bin = max / kNumBins;
  std::vector<double> counts(kNumBins);
  for (const double value : values_ms) {
    counts[std::min(static_cast<size_t>(std::max(value, 0.0) / bin), kNumBins - 1)] += 1;
  }
  Panel panel(svg, left, top, kHalf, kPanelHeight, max, *std::max_element(counts.begin(), counts.end()));
  panel.axes(title, "ms");
  for (size_t i = 0; i < kNumBins; ++i) {
    const double from = bin * static_cast<double>(i);
    if (counts[i] == 0) continue;
    svg.rect(panel.x(from), panel.y(counts[i]), panel.x(from + bin) - panel.x(from) - 0.5,
             panel.y(0) - panel.y(counts[i]), kBlue,
             fmt::format("{:.1f} to {:.1f} ms{}: {:.0f}", from, from + bin, i + 1 == kNumBins ? " and above" : "",
                         counts[i]));
  }
}

void draw_latency(SvgWriter& svg, const std::vector<ServePoint>& points, ServeMetric metric, const std::string& title,
                  double left) {
  double max_x = 0, max_y = 0;
  const auto high = [&](const ServePoint& point) {
    const ServeDistribution& d = point.summary.of(metric);
    double value = d.median;
    for (const auto& [percent, at] : d.percentiles) value = std::max(value, at);
    return value;
  };
  for (const ServePoint& point : points) {
    max_x = std::max(max_x, point.summary.output_throughput);
    max_y = std::max(max_y, high(point));
  }
  constexpr double kTop = kHeader + 20, kHeight = 300;
  Panel panel(svg, left, kTop, kHalf, kHeight, 1.1 * max_x, max_y);
  panel.axes(title + ", ms", "output tokens per second");
  double last_x = 0, last_median = 0, last_high = 0;
  for (size_t i = 0; i < points.size(); ++i) {
    const double x = panel.x(points[i].summary.output_throughput);
    const double median = panel.y(points[i].summary.of(metric).median), top = panel.y(high(points[i]));
    if (i > 0) {
      svg.line(last_x, last_median, x, median, kBlue, 2);
      svg.line(last_x, last_high, x, top, kOrange, 2);
    }
    svg.rect(x - 3, median - 3, 6, 6, kBlue,
             fmt::format("{}: median {:.2f} ms", points[i].label, points[i].summary.of(metric).median));
    svg.rect(x - 3, top - 3, 6, 6, kOrange, fmt::format("{}: {:.2f} ms", points[i].label, high(points[i])));
    svg.text(x, top - 8, points[i].label, TextAnchor::kMiddle, 11, kSoftText);
    last_x = x;
    last_median = median;
    last_high = top;
  }
}

}  // namespace

std::string plot_serve_run(const ServeRun& run, const ServeSummary& summary, const std::string& title,
                           const std::string& subtitle) {
  const double requests_top = kHeader + kPanelHeight + kPanelGap;
  const double histograms_top = requests_top + lanes_height(run) + kPanelGap;
  SvgWriter svg(kWidth, histograms_top + kPanelHeight + 50);
  draw_titles(svg, title, subtitle);
  svg.text(kRight, 32,
           fmt::format("{:.1f} tokens/s, {:.2f} requests/s", summary.output_throughput, summary.request_throughput),
           TextAnchor::kEnd, 14);
  const std::vector<double> tokens = tokens_by_second(run);
  draw_throughput(svg, tokens, kHeader);
  draw_requests(svg, run, static_cast<double>(tokens.size()), requests_top);
  std::vector<double> ttfts, itls;
  for (const ServeRecord& record : run.records) {
    if (!record.success) continue;
    ttfts.push_back(1e3 * record.ttft_s);
    for (const double gap_s : record.itl_s) itls.push_back(1e3 * gap_s);
  }
  draw_histogram(svg, std::move(ttfts), "Time to first token, requests", kLeft, histograms_top);
  draw_histogram(svg, std::move(itls), "Inter-token latency, gaps", kRight - kHalf, histograms_top);
  return svg.finish();
}

std::string plot_serve_sweep(const std::vector<ServePoint>& points, const std::string& title,
                             const std::string& subtitle) {
  SvgWriter svg(kWidth, 470);
  draw_titles(svg, title, subtitle);
  svg.rect(kRight - 250, 44, 12, 12, kBlue);
  svg.text(kRight - 233, 54, "median", TextAnchor::kStart, 11);
  svg.rect(kRight - 170, 44, 12, 12, kOrange);
  svg.text(kRight - 153, 54, "highest percentile asked for", TextAnchor::kStart, 11);
  draw_latency(svg, points, ServeMetric::kTtft, "Time to first token", kLeft);
  draw_latency(svg, points, ServeMetric::kTpot, "Time per output token", kRight - kHalf);
  return svg.finish();
}

}  // namespace hadal
