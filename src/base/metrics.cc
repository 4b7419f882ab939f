#include "base/metrics.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace hadal {
namespace {

std::string escaped(std::string_view text, bool quote) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '"' && quote) {
      out += "\\\"";
    } else {
      out += c;
    }
  }
  return out;
}

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  // Integers without an exponent, so that counts read as counts.
  if (value == std::floor(value) && std::abs(value) < 9007199254740992.0) {
    return fmt::format("{}", static_cast<int64_t>(value));
  }
  return fmt::format("{}", value);
}

// `{a="1",b="2"}`, with room for one more label; "" without labels.
std::string label_set(const MetricLabels& labels, std::string_view extra_name = {}, std::string_view extra = {}) {
  std::string out;
  const auto add = [&](std::string_view name, std::string_view value) {
    out += fmt::format("{}{}=\"{}\"", out.empty() ? "" : ",", name, escaped(value, true));
  };
  for (const auto& [name, value] : labels) add(name, value);
  if (!extra_name.empty()) add(extra_name, extra);
  return out.empty() ? out : "{" + out + "}";
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(new std::atomic<uint64_t>[bounds_.size() + 1]()) {
  HADAL_CHECK(std::adjacent_find(bounds_.begin(), bounds_.end(), std::greater_equal<>()) == bounds_.end(),
              "histogram bounds must ascend");
}

void Histogram::observe(double value) {
  const auto bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  counts_[static_cast<size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

uint64_t Histogram::count() const {
  uint64_t total = 0;
  for (size_t i = 0; i <= bounds_.size(); ++i) total += bucket_count(i);
  return total;
}

struct MetricsRegistry::Series {
  explicit Series(MetricLabels series_labels, const std::vector<double>& bounds)
      : labels(std::move(series_labels)), histogram(bounds) {}
  MetricLabels labels;
  Counter counter;
  Gauge gauge;
  Histogram histogram;  // of kHistogram and kSummary
};

struct MetricsRegistry::Family {
  Kind kind;
  std::string name;
  std::string help;
  std::vector<double> bounds;
  std::vector<std::unique_ptr<Series>> series;

  void append_text(std::string& out) const {
    static constexpr const char* kKindNames[] = {"counter", "gauge", "histogram", "summary"};
    out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, escaped(help, false), name,
                       kKindNames[static_cast<int>(kind)]);
    for (const auto& one : series) append_series(*one, out);
  }

  void append_series(const Series& one, std::string& out) const {
    if (kind == Kind::kCounter || kind == Kind::kGauge) {
      const double value = kind == Kind::kCounter ? one.counter.value() : one.gauge.value();
      out += fmt::format("{}{} {}\n", name, label_set(one.labels), number(value));
      return;
    }
    uint64_t cumulative = 0;
    for (size_t i = 0; i <= bounds.size(); ++i) {
      cumulative += one.histogram.bucket_count(i);
      if (kind == Kind::kSummary) continue;
      const std::string le = i < bounds.size() ? (bounds[i] == std::floor(bounds[i]) ? fmt::format("{:.1f}", bounds[i])
                                                                                     : fmt::format("{}", bounds[i]))
                                               : "+Inf";
      out += fmt::format("{}_bucket{} {}\n", name, label_set(one.labels, "le", le), cumulative);
    }
    const std::string labels = label_set(one.labels);
    out += fmt::format("{}_count{} {}\n{}_sum{} {}\n", name, labels, cumulative, name, labels,
                       number(one.histogram.sum()));
  }
};

MetricsRegistry::MetricsRegistry() = default;
MetricsRegistry::~MetricsRegistry() = default;

MetricsRegistry::Series& MetricsRegistry::series(Kind kind, std::string_view name, std::string_view help,
                                                 const MetricLabels& labels, const std::vector<double>& bounds) {
  const std::lock_guard lock(mutex_);
  auto family = std::find_if(families_.begin(), families_.end(), [&](const auto& f) { return f->name == name; });
  if (family == families_.end()) {
    families_.push_back(std::make_unique<Family>(Family{kind, std::string(name), std::string(help), bounds, {}}));
    family = std::prev(families_.end());
  }
  HADAL_CHECK((*family)->kind == kind, "metric {} is registered as another kind", name);
  auto& all = (*family)->series;
  const auto found = std::find_if(all.begin(), all.end(), [&](const auto& one) { return one->labels == labels; });
  if (found != all.end()) return **found;
  all.push_back(std::make_unique<Series>(labels, (*family)->bounds));
  return *all.back();
}

Counter& MetricsRegistry::counter(std::string_view name, std::string_view help, const MetricLabels& labels) {
  return series(Kind::kCounter, name, help, labels).counter;
}
Gauge& MetricsRegistry::gauge(std::string_view name, std::string_view help, const MetricLabels& labels) {
  return series(Kind::kGauge, name, help, labels).gauge;
}
Histogram& MetricsRegistry::histogram(std::string_view name, std::string_view help, const std::vector<double>& bounds,
                                      const MetricLabels& labels) {
  return series(Kind::kHistogram, name, help, labels, bounds).histogram;
}
Histogram& MetricsRegistry::summary(std::string_view name, std::string_view help, const MetricLabels& labels) {
  return series(Kind::kSummary, name, help, labels).histogram;
}

void MetricsRegistry::on_scrape(std::function<void()> update) {
  const std::lock_guard lock(scrape_mutex_);
  updates_.push_back(std::move(update));
}

std::string MetricsRegistry::text() const {
  const std::lock_guard scrape_lock(scrape_mutex_);
  for (const auto& update : updates_) update();
  const std::lock_guard lock(mutex_);
  std::string out;
  for (const auto& family : families_) family->append_text(out);
  return out;
}

std::vector<double> one_two_five_bounds(int64_t max_value) {
  std::vector<double> bounds;
  for (int64_t scale = 1; scale <= max_value; scale *= 10) {
    for (const int64_t factor : {1, 2, 5}) {
      if (factor * scale <= max_value) bounds.push_back(static_cast<double>(factor * scale));
    }
    if (scale > max_value / 10) break;
  }
  return bounds;
}

}  // namespace hadal
