// Counters, gauges and histograms with labels, and their Prometheus text (exposition format 0.0.4).
// Registration takes a lock and may allocate; the returned references live as long as the registry, and changing a
// metric through them is a few atomic operations without a lock, from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hadal {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Only grows. Exact for integers up to 2^53.
class Counter {
 public:
  void add(double amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  // For totals that somebody else counts: takes over a reading that is never smaller than the last one.
  void set_total(double total) { value_.store(total, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

class Gauge {
 public:
  void set(double value) { value_.store(value, std::memory_order_relaxed); }
  void add(double amount) { value_.fetch_add(amount, std::memory_order_relaxed); }
  double value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<double> value_{0};
};

// Without buckets it is a Prometheus summary without quantiles: count and sum only.
class Histogram {
 public:
  explicit Histogram(std::vector<double> bounds);  // strictly ascending upper bounds, inclusive; +Inf is implied
  void observe(double value);

  const std::vector<double>& bounds() const { return bounds_; }
  uint64_t bucket_count(size_t bucket) const { return counts_[bucket].load(std::memory_order_relaxed); }
  uint64_t count() const;
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  const std::vector<double> bounds_;
  std::unique_ptr<std::atomic<uint64_t>[]> counts_;  // [bounds + 1], not cumulative
  std::atomic<double> sum_{0};
};

// Thread-safe.
class MetricsRegistry {
 public:
  MetricsRegistry();
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  // The metric of that name and those labels; made on first use. A name keeps its first kind, help and buckets: asking
  // for it as another kind is a bug (HADAL_CHECK).
  Counter& counter(std::string_view name, std::string_view help, const MetricLabels& labels = {});
  Gauge& gauge(std::string_view name, std::string_view help, const MetricLabels& labels = {});
  Histogram& histogram(std::string_view name, std::string_view help, const std::vector<double>& bounds,
                       const MetricLabels& labels = {});
  Histogram& summary(std::string_view name, std::string_view help, const MetricLabels& labels = {});

  // Runs before each text(), to copy in values that others keep. Must not register metrics or call text().
  void on_scrape(std::function<void()> update);

  // Families in order of registration.
  std::string text() const;

 private:
  struct Family;
  struct Series;
  enum class Kind { kCounter, kGauge, kHistogram, kSummary };
  Series& series(Kind kind, std::string_view name, std::string_view help, const MetricLabels& labels,
                 const std::vector<double>& bounds = {});

  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Family>> families_;
  mutable std::mutex scrape_mutex_;  // one scrape at a time
  std::vector<std::function<void()>> updates_;
};

// Bounds 1, 2, 5, 10, 20, 50, ... up to and including the last that is <= max_value.
std::vector<double> one_two_five_bounds(int64_t max_value);

}  // namespace hadal
