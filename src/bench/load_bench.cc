#include "bench/load_bench.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "base/resource_limits.h"
#include "bench/disk_probe.h"
#include "bench/probe_memory.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;

// As many as the loader has at least: waiting for the disk, or for the system to find pages.
constexpr int kProbeThreads = 8;
constexpr int64_t kHugePageBytes = int64_t{2} << 20, kSmallPageBytes = 4096;
constexpr double kGb = 1e9;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Pages that this process never had: memory given back a moment ago is much cheaper to get again.
Expected<double> first_touch_rate(uint64_t wanted_bytes) {
  const uint64_t available = available_memory_bytes().value_or(4 * wanted_bytes);
  HADAL_ASSIGN_OR_RETURN(const ProbeMemory memory,
                         ProbeMemory::create(std::min(wanted_bytes, available / 4), Pages::kHuge));
  std::atomic<int64_t> next{0};
  const auto begin = Clock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < kProbeThreads; ++i) {
    threads.emplace_back([&] {
      for (int64_t at; (at = next.fetch_add(kHugePageBytes)) < memory.size_bytes();) {
        const int64_t end = std::min(at + kHugePageBytes, memory.size_bytes());
        for (; at < end; at += kSmallPageBytes) memory.data()[at] = 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return static_cast<double>(memory.size_bytes()) / seconds_since(begin);
}

Expected<double> disk_rate(const std::filesystem::path& dir, double seconds) {
  HADAL_ASSIGN_OR_RETURN(DiskProbe disk, DiskProbe::open(dir));
  double best = 0;
  for (const auto begin = Clock::now(); seconds_since(begin) < seconds;) {
    HADAL_ASSIGN_OR_RETURN(const double rate, disk.sample(kProbeThreads));
    best = std::max(best, rate);
  }
  return best;
}

}  // namespace

Expected<LoadBenchReport> run_load_bench(const LoadBenchOptions& options) {
  LoadBenchReport report;
  report.host = host_facts();
  HADAL_ASSIGN_OR_RETURN(const LoadedModel loaded, load_for_bench(options.model));
  report.peak_resident_bytes = process_memory().peak_resident_bytes;
  report.model = model_json(options.model.dir, loaded.config);
  report.seconds = loaded.seconds;
  report.read_bytes = loaded.read_bytes;
  report.weight_bytes = loaded.weight_bytes;
  HADAL_ASSIGN_OR_RETURN(report.first_touch_bytes_per_s, first_touch_rate(options.touch_bytes));
  if (const auto rate = disk_rate(options.model.dir, options.disk_seconds); rate) {
    report.disk_bytes_per_s = *rate;
  } else {
    report.disk_note = rate.error().message;
  }
  return report;
}

Json load_report_json(const LoadBenchReport& report) {
  return {{"kind", "load"},
          {"machine", host_json(report.host)},
          {"model", report.model},
          {"rows", Json::array()},
          {"seconds", report.seconds},
          {"read_bytes", report.read_bytes},
          {"bytes_per_s", report.bytes_per_s()},
          {"disk_bytes_per_s", report.disk_bytes_per_s},
          {"disk_note", report.disk_note},
          {"first_touch_bytes_per_s", report.first_touch_bytes_per_s},
          {"ceiling_share", report.bytes_per_s() / report.ceiling_bytes_per_s()},
          {"weight_bytes", report.weight_bytes},
          {"peak_resident_bytes", report.peak_resident_bytes}};
}

std::string load_report_table(const LoadBenchReport& report) {
  const auto gb = [](auto bytes) { return static_cast<double>(bytes) / kGb; };
  const std::string disk = report.disk_note.empty() ? fmt::format("{:.2f} GB/s (direct reads, {} at a time)",
                                                                  gb(report.disk_bytes_per_s), kProbeThreads)
                                                    : "not measured: " + report.disk_note;
  return fmt::format(
      "load         {:.2f} GB in {:.2f} s = {:.2f} GB/s, {:.0f} % of the slower of\n"
      "disk         {}\n"
      "first touch  {:.2f} GB/s (fresh huge pages, {} threads)\n"
      "memory       {:.2f} GB at most, {:.2f} GB beside the packed weights\n",
      gb(report.read_bytes), report.seconds, gb(report.bytes_per_s()),
      100 * report.bytes_per_s() / report.ceiling_bytes_per_s(), disk, gb(report.first_touch_bytes_per_s),
      kProbeThreads, gb(report.peak_resident_bytes), gb(report.peak_resident_bytes) - gb(report.weight_bytes));
}

}  // namespace hadal
