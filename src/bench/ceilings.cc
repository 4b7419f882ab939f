#include "bench/ceilings.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <optional>
#include <set>
#include <utility>

#include "base/topology.h"
#include "bench/disk_probe.h"
#include "bench/host.h"
#include "bench/probe_team.h"

namespace hadal {
namespace {

constexpr double kMaxSeconds = 3600;
constexpr int kMaxThreads = 4096;
constexpr uint64_t kMinHalfBytes = uint64_t{256} << 20;
constexpr uint64_t kL3Multiple = 4;  // of each half; both halves are swept in turn
constexpr uint64_t kHugePageBytes = 2 << 20;
constexpr uint64_t kTouchBytesPerThread = uint64_t{32} << 20;
constexpr double kMultiplySampleSeconds = 3e-3;
constexpr int64_t kTrialRounds = 20000;
constexpr int64_t kEmptyLoops = 2000;
constexpr int kDiskJobs[] = {4, 16};  // requests in flight

struct Probe {
  ProbeResult result;
  std::function<Expected<double>()> sample;
  std::vector<double> samples;
};

// The first line; empty where there is none. Not for foreign files: the kernel's own are short.
std::string kernel_file(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Each level-3 cache once: /sys names the processors that share it.
double total_l3_bytes(const CpuTopology& topology) {
  std::set<std::string> seen;
  double total = 0;
  for (const int cpu : topology.cpus) {
    const std::string dir = fmt::format("/sys/devices/system/cpu/cpu{}/cache/index3/", cpu);
    const std::string shared = kernel_file(dir + "shared_cpu_list");
    if (shared.empty() || !seen.insert(shared).second) continue;
    total += std::strtod(kernel_file(dir + "size").c_str(), nullptr) * 1024;  // "32768K"
  }
  return total;
}

// 1, 2, 4, ... and all.
std::vector<int> thread_counts(int num_threads) {
  std::vector<int> counts;
  for (int count = 1; count < num_threads; count *= 2) counts.push_back(count);
  counts.push_back(num_threads);
  return counts;
}

const char* kind_name(MultiplyKind kind) {
  static constexpr const char* kNames[] = {"bf16", "fp32", "int8"};
  return kNames[static_cast<size_t>(kind)];
}

void summarise(Probe& probe) {
  std::vector<double>& values = probe.samples;
  ProbeResult& result = probe.result;
  result.num_samples = static_cast<int>(values.size());
  if (values.empty()) return;
  std::sort(values.begin(), values.end());
  result.min = values.front();
  result.max = values.back();
  result.median = (values[values.size() / 2] + values[(values.size() - 1) / 2]) / 2;
  result.best = result.unit == "s" ? result.min : result.max;
}

// All probes of a run. Every round takes one sample of each, so that a quiet moment of the machine reaches all of them.
class CeilingSession {
 public:
  explicit CeilingSession(int num_threads)
      : topology_(detect_topology()), team_(topology_, num_threads), l3_bytes_(total_l3_bytes(topology_)) {}

  Status set_up(const std::filesystem::path& disk) {
    const uint64_t l3_multiple = static_cast<uint64_t>(l3_bytes_) * kL3Multiple;
    const uint64_t half_bytes = std::max(kMinHalfBytes, (l3_multiple + kHugePageBytes - 1) & ~(kHugePageBytes - 1));
    for (const Pages pages : {Pages::kSmall, Pages::kHuge}) {
      HADAL_ASSIGN_OR_RETURN(memory(pages), ProbeMemory::create(half_bytes, pages));
      add_first_touch(pages);
      probes_.back().samples.push_back(team_.touch(memory(pages)));
    }
    add_reads();
    add_multiplies();
    for (const Pages pages : {Pages::kSmall, Pages::kHuge}) {
      add("memcpy", "", team_.num_threads(), pages_name(pages), "B/s",
          [this, pages] { return team_.copy(memory(pages)); });
    }
    add("barrier", "", team_.num_threads(), "", "s", [this] { return team_.empty_loop(kEmptyLoops); });
    return disk.empty() ? Status{} : add_disk(disk);
  }

  Status run(double seconds) {
    const auto begin = std::chrono::steady_clock::now();
    do {
      for (Probe& probe : probes_) {
        HADAL_ASSIGN_OR_RETURN(const double value, probe.sample());
        if (std::isfinite(value) && value > 0) probe.samples.push_back(value);
      }
    } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < seconds);
    return {};
  }

  Ceilings finish() {
    Ceilings ceilings;
    ceilings.num_threads = team_.num_threads();
    ceilings.l3_bytes = l3_bytes_;
    ceilings.cpu = host_facts().cpu_model;
    for (Probe& probe : probes_) {
      summarise(probe);
      ceilings.probes.push_back(probe.result);
    }
    ceilings.read_bytes_per_s = best_of(ceilings, "read");
    ceilings.memcpy_bytes_per_s = best_of(ceilings, "memcpy");
    ceilings.first_touch_bytes_per_s = best_of(ceilings, "first_touch");
    ceilings.bf16_flops = best_of(ceilings, "bf16");
    ceilings.fp32_flops = best_of(ceilings, "fp32");
    ceilings.int8_ops = best_of(ceilings, "int8");
    ceilings.disk_read_bytes_per_s = best_of(ceilings, "disk");
    ceilings.barrier_s = best_of(ceilings, "barrier");
    for (const ProbeResult& probe : ceilings.probes) {
      if (probe.what != "read") continue;
      ceilings.read_median_bytes_per_s = std::max(ceilings.read_median_bytes_per_s, probe.median);
    }
    return ceilings;
  }

 private:
  using Workers = ProbeTeam::Workers;

  ProbeMemory& memory(Pages pages) { return memories_[pages == Pages::kHuge ? 1 : 0]; }

  void add(std::string what, std::string variant, int num_threads, std::string pages, std::string unit,
           std::function<Expected<double>()> sample) {
    ProbeResult result;
    result.what = std::move(what);
    result.variant = std::move(variant);
    result.num_threads = num_threads;
    result.pages = std::move(pages);
    result.unit = std::move(unit);
    probes_.push_back({std::move(result), std::move(sample), {}});
  }

  static double best_of(const Ceilings& ceilings, const std::string& what) {
    double best = 0;
    for (const ProbeResult& probe : ceilings.probes) {
      if (probe.what != what || probe.num_samples == 0) continue;
      const bool better = best == 0 || (probe.unit == "s" ? probe.best < best : probe.best > best);
      if (better) best = probe.best;
    }
    return best;
  }

  void add_first_touch(Pages pages) {
    add("first_touch", "", team_.num_threads(), pages_name(pages), "B/s", [this, pages]() -> Expected<double> {
      const uint64_t size_bytes = kTouchBytesPerThread * static_cast<uint64_t>(team_.num_threads());
      HADAL_ASSIGN_OR_RETURN(const ProbeMemory fresh, ProbeMemory::create(size_bytes, pages));
      return team_.touch(fresh);
    });
  }

  // Every variant on all threads; fewer threads and single NUMA nodes with the widest loads only.
  void add_reads() {
    for (const ProbeLoops* loops : usable_probe_loops()) {
      if (loops->reads->run != nullptr) widest_reads_ = loops->reads;
      for (const ReadLoop* loop = loops->reads; loop->run != nullptr; ++loop) {
        for (const Pages pages : {Pages::kSmall, Pages::kHuge}) {
          add("read", loop->variant, team_.num_threads(), pages_name(pages), "B/s",
              [this, loop, pages] { return team_.read(*loop, memory(pages), team_.all()); });
        }
      }
    }
    for (const int count : thread_counts(team_.num_threads())) {
      if (count < team_.num_threads()) add_partial_reads(team_.first(count), -1);
    }
    if (topology_.nodes.size() < 2) return;
    for (const NumaNode& node : topology_.nodes) {
      const Workers workers = team_.on(node);
      if (!workers.empty()) add_partial_reads(workers, node.os_idx);
    }
  }

  // The part of a few threads may fit into cache: all threads sweep the other half before each sample.
  void add_partial_reads(const Workers& workers, int numa_node) {
    for (const ReadLoop* loop = widest_reads_; loop->run != nullptr; ++loop) {
      for (const Pages pages : {Pages::kSmall, Pages::kHuge}) {
        add("read", loop->variant, static_cast<int>(workers.size()), pages_name(pages), "B/s",
            [this, loop, pages, workers] {
              const Pages other = pages == Pages::kHuge ? Pages::kSmall : Pages::kHuge;
              team_.read(*widest_reads_, memory(other), team_.all());
              return team_.read(*loop, memory(pages), workers);
            });
        probes_.back().result.numa_node = numa_node;
      }
    }
  }

  void add_multiplies() {
    for (const ProbeLoops* loops : usable_probe_loops()) {
      for (const MultiplyLoop* loop = loops->multiplies; loop->run != nullptr; ++loop) {
        const double trial_rate = team_.multiply(*loop, kTrialRounds, team_.first(1));
        const int64_t num_rounds =
            std::max(kTrialRounds, static_cast<int64_t>(trial_rate * kMultiplySampleSeconds / loop->ops_per_round));
        for (const int count : thread_counts(team_.num_threads())) {
          const Workers workers = team_.first(count);
          add(kind_name(loop->kind), loop->variant, count, "", "op/s",
              [this, loop, num_rounds, workers] { return team_.multiply(*loop, num_rounds, workers); });
        }
      }
    }
  }

  Status add_disk(const std::filesystem::path& path) {
    HADAL_ASSIGN_OR_RETURN(DiskProbe opened, DiskProbe::open(path));
    disk_.emplace(std::move(opened));
    for (const int num_jobs : kDiskJobs) {
      add("disk", fmt::format("{} in flight", num_jobs), num_jobs, "", "B/s",
          [this, num_jobs] { return disk_->sample(num_jobs); });
    }
    return {};
  }

  const CpuTopology topology_;
  ProbeTeam team_;
  const double l3_bytes_;
  ProbeMemory memories_[2];
  const ReadLoop* widest_reads_ = kBaselineProbes.reads;
  std::optional<DiskProbe> disk_;
  std::vector<Probe> probes_;
};

}  // namespace

Expected<Ceilings> measure_ceilings(const CeilingOptions& options) {
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return make_error(ErrorCode::kInvalidArgument, "--threads {}: 0 to {} are possible", options.num_threads,
                      kMaxThreads);
  }
  if (!(options.seconds >= 0 && options.seconds <= kMaxSeconds)) {
    return make_error(ErrorCode::kInvalidArgument, "--seconds {}: 0 to {} are possible", options.seconds, kMaxSeconds);
  }
  CeilingSession session(options.num_threads > 0 ? options.num_threads : default_num_threads());
  HADAL_RETURN_IF_ERROR(session.set_up(options.disk));
  HADAL_RETURN_IF_ERROR(session.run(options.seconds));
  return session.finish();
}

}  // namespace hadal
