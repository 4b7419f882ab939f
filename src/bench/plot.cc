#include "bench/plot.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "bench/report_reader.h"
#include "bench/svg.h"

namespace hadal {
namespace {

// Colours that people with colour blindness tell apart (Okabe and Ito), grey for time that nobody works.
constexpr std::array<const char*, kNumLosses> kLossColors = {"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9",
                                                             "#d55e00", "#f0e442", "#000000", "#8c8c8c", "#e0e0e0"};
constexpr const char* kBarColor = "#4c78a8";
constexpr const char* kCeilingColor = "#b40426";
constexpr const char* kGridColor = "#dddddd";
constexpr const char* kSoftText = "#666666";

// Pixels.
constexpr double kWidth = 1120;
constexpr double kLabelRight = 150;
constexpr double kBarsLeft = 160, kBarsRight = 620;
constexpr double kSharesLeft = 700, kSharesRight = 1090;
constexpr double kHeaderHeight = 112;
constexpr double kRowHeight = 24, kBarHeight = 16;
constexpr double kGroupHeader = 30, kAxisHeight = 44;

std::string number(double value) { return fmt::format("{:.{}f}", value, value < 10 ? 2 : value < 100 ? 1 : 0); }
std::string tick_text(double value, double step) { return fmt::format("{:.{}f}", value, step < 1 ? 1 : 0); }

// Tokens per second at the ceiling; 0: unknown.
double ceiling_speed(const ReportRow& row) {
  const double share = row.ceiling_share.value_or(0);
  return share > 0 ? row.tokens_per_s->median / share : 0;
}

using Rows = std::vector<const ReportRow*>;

double scale_of(const Rows& rows) {
  double max = 0;
  for (const ReportRow* row : rows) max = std::max({max, row->tokens_per_s->max, ceiling_speed(*row)});
  const double step = tick_step(max > 0 ? max : 1, 6);
  return step * std::ceil((max > 0 ? max : 1) / step);
}

// Rows of one group with their axes; (x, y) is where the group begins.
class GroupChart {
 public:
  GroupChart(SvgWriter& svg, const Rows& rows, double y)
      : svg_(svg),
        rows_(rows),
        top_(y + kGroupHeader),
        bottom_(top_ + kRowHeight * static_cast<double>(rows.size())),
        max_(scale_of(rows)) {}

  static double height(size_t num_rows) {
    return kGroupHeader + kRowHeight * static_cast<double>(num_rows) + kAxisHeight;
  }

  void draw() {
    svg_.text(kBarsLeft, top_ - 10, rows_.front()->group, TextAnchor::kStart, 14, "#222222", true);
    draw_axes();
    for (size_t i = 0; i < rows_.size(); ++i) {
      draw_row(*rows_[i], top_ + kRowHeight * static_cast<double>(i) + (kRowHeight - kBarHeight) / 2);
    }
  }

 private:
  double x_of(double tokens_per_s) const { return kBarsLeft + (kBarsRight - kBarsLeft) * tokens_per_s / max_; }
  static double x_of_share(double share) { return kSharesLeft + (kSharesRight - kSharesLeft) * share; }

  void draw_axes() {
    const double step = tick_step(max_, 6);
    for (int i = 0; step * i <= max_ * 1.0001; ++i) {
      const double x = x_of(step * i);
      svg_.line(x, top_, x, bottom_, kGridColor);
      svg_.text(x, bottom_ + 15, tick_text(step * i, step), TextAnchor::kMiddle, 11, kSoftText);
    }
    for (int percent = 0; percent <= 100; percent += 25) {
      const double x = x_of_share(percent / 100.0);
      svg_.line(x, top_, x, bottom_, kGridColor);
      svg_.text(x, bottom_ + 15, fmt::format("{}", percent), TextAnchor::kMiddle, 11, kSoftText);
    }
    svg_.text((kBarsLeft + kBarsRight) / 2, bottom_ + 31, "tokens per second", TextAnchor::kMiddle, 12);
    svg_.text((kSharesLeft + kSharesRight) / 2, bottom_ + 31, "% of the step's time x threads", TextAnchor::kMiddle,
              12);
  }

  void draw_row(const ReportRow& row, double y) {
    const Spread& speed = *row.tokens_per_s;
    const double middle = y + kBarHeight / 2;
    svg_.text(kLabelRight, middle + 4, row.name, TextAnchor::kEnd);
    svg_.rect(kBarsLeft, y, x_of(speed.median) - kBarsLeft, kBarHeight, kBarColor,
              fmt::format("{}: {} tokens/s ({} to {})", row.name, number(speed.median), number(speed.min),
                          number(speed.max)));
    svg_.line(x_of(speed.min), middle, x_of(speed.max), middle, "#1b2a41", 2);
    double label_x = x_of(speed.max);
    if (const double ceiling = ceiling_speed(row); ceiling > 0) {
      svg_.line(x_of(ceiling), y - 3, x_of(ceiling), y + kBarHeight + 3, kCeilingColor, 3);
      label_x = std::max(label_x, x_of(ceiling));
    }
    const std::string share = row.ceiling_share ? fmt::format(" ({:.0f} %)", 100 * *row.ceiling_share) : "";
    svg_.text(label_x + 6, middle + 4, number(speed.median) + share, TextAnchor::kStart, 11, kSoftText);
    if (row.shares) draw_shares(row, y);
  }

  void draw_shares(const ReportRow& row, double y) {
    double sum = 0;
    for (size_t i = 0; i < kNumLosses; ++i) {
      const double share = std::min((*row.shares)[i], 1 - sum);
      if (share <= 0) continue;
      svg_.rect(x_of_share(sum), y, x_of_share(share) - kSharesLeft, kBarHeight, kLossColors[i],
                fmt::format("{}: {} {:.1f} %", row.name, kLossNames[i], 100 * share));
      sum += share;
    }
  }

  SvgWriter& svg_;
  const Rows& rows_;
  const double top_, bottom_, max_;
};

void draw_header(SvgWriter& svg, const Report& report) {
  svg.text(24, 32, report.title.empty() ? "hadal bench" : report.title, TextAnchor::kStart, 18, "#222222", true);
  svg.text(24, 54, report.subtitle, TextAnchor::kStart, 12, kSoftText);
  svg.rect(kBarsLeft, 78, 22, 12, kBarColor);
  svg.text(kBarsLeft + 28, 88, "median");
  svg.line(kBarsLeft + 92, 84, kBarsLeft + 118, 84, "#1b2a41", 2);
  svg.text(kBarsLeft + 124, 88, "range");
  svg.line(kBarsLeft + 182, 76, kBarsLeft + 182, 92, kCeilingColor, 3);
  svg.text(kBarsLeft + 190, 88, "ceiling of the machine (share reached)");
  // The legend of shares, in two lines above their bars.
  constexpr size_t kPerLine = 5;
  const double cell = (kSharesRight - kSharesLeft) / kPerLine;
  for (size_t i = 0; i < kNumLosses; ++i) {
    const double x = kSharesLeft + cell * static_cast<double>(i % kPerLine);
    const double y = i < kPerLine ? 70 : 90;
    svg.rect(x, y, 12, 12, kLossColors[i]);
    svg.text(x + 17, y + 10, kLossNames[i], TextAnchor::kStart, 11);
  }
}

// Drawable rows by group, groups in order of appearance.
std::vector<Rows> group_rows(const Report& report) {
  std::vector<Rows> groups;
  for (const ReportRow& row : report.rows) {
    if (!row.tokens_per_s) continue;
    const auto found =
        std::find_if(groups.begin(), groups.end(), [&](const Rows& rows) { return rows.front()->group == row.group; });
    (found == groups.end() ? groups.emplace_back() : *found).push_back(&row);
  }
  return groups;
}

}  // namespace

double tick_step(double max, int most) {
  const double least = max / most;
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least) return factor * power;
  }
  return 10 * power;
}

Expected<std::string> plot_report(const Json& json) {
  HADAL_ASSIGN_OR_RETURN(const Report report, read_report(json));
  const std::vector<Rows> groups = group_rows(report);
  if (groups.empty()) return make_error(ErrorCode::kCorrupt, "no row has tokens per second: nothing to plot");
  double height = kHeaderHeight + 10;
  for (const Rows& rows : groups) height += GroupChart::height(rows.size());
  SvgWriter svg(kWidth, height);
  draw_header(svg, report);
  double y = kHeaderHeight;
  for (const Rows& rows : groups) {
    GroupChart(svg, rows, y).draw();
    y += GroupChart::height(rows.size());
  }
  return svg.finish();
}

}  // namespace hadal
