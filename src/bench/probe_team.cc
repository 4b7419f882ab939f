#include "bench/probe_team.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <ctime>
#include <numeric>

#include "base/cpu_features.h"

namespace hadal {
namespace {

// Results of read and multiply loops end here, so that no compiler can drop the loops.
std::atomic<uint64_t> g_sink{0};

constexpr int64_t kPartAlignment = 4096;

double wall_now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double thread_cpu_now_s() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Keeps the calling thread on one processor until the end of scope. Where the system refuses, nothing happens.
class PinnedHere {
 public:
  explicit PinnedHere(int cpu) {
    CPU_ZERO(&before_);
    if (sched_getaffinity(0, sizeof(before_), &before_) != 0) return;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(cpu), &one);
    pinned_ = sched_setaffinity(0, sizeof(one), &one) == 0;
  }
  ~PinnedHere() {
    if (pinned_) sched_setaffinity(0, sizeof(before_), &before_);
  }
  PinnedHere(const PinnedHere&) = delete;
  PinnedHere& operator=(const PinnedHere&) = delete;

 private:
  cpu_set_t before_;
  bool pinned_ = false;
};

std::vector<const ProbeLoops*> find_usable_probe_loops() {
  const CpuFeatures& cpu = cpu_features();
  std::vector<const ProbeLoops*> loops = {&kBaselineProbes};
  if (cpu.avx2 && cpu.fma) loops.push_back(&kAvx2Probes);
  if (cpu.avx512f && cpu.avx512vl) loops.push_back(&kAvx512Probes);
  if (cpu.avx512f && cpu.avx512_bf16) loops.push_back(&kAvx512Bf16Probes);
  if (cpu.avx512f && cpu.avx512_vnni) loops.push_back(&kAvx512VnniProbes);
  return loops;
}

}  // namespace

const std::vector<const ProbeLoops*>& usable_probe_loops() {
  static const std::vector<const ProbeLoops*> loops = find_usable_probe_loops();
  return loops;
}

ProbeTeam::ProbeTeam(const CpuTopology& topology, int num_threads)
    : cpus_(topology.cores),
      pool_(ThreadPoolOptions{.num_threads = num_threads, .pin_cpus = topology.cores}),
      values_(static_cast<size_t>(num_threads), 0.0) {}

ProbeTeam::Workers ProbeTeam::all() const { return first(num_threads()); }

ProbeTeam::Workers ProbeTeam::first(int count) const {
  Workers workers(static_cast<size_t>(count));
  std::iota(workers.begin(), workers.end(), 0);
  return workers;
}

ProbeTeam::Workers ProbeTeam::on(const NumaNode& node) const {
  Workers workers;
  for (int i = 0; i < num_threads(); ++i) {
    if (std::binary_search(node.cpus.begin(), node.cpus.end(), cpu(i))) workers.push_back(i);
  }
  return workers;
}

ProbeTeam::Part ProbeTeam::part(const ProbeMemory& memory, int worker_idx) const {
  const auto bound = [&](int idx) {
    return memory.size_bytes() / kPartAlignment * idx / num_threads() * kPartAlignment;
  };
  return {memory.data() + bound(worker_idx), bound(worker_idx + 1) - bound(worker_idx)};
}

template <typename Fn>
double ProbeTeam::timed(const Workers& workers, Fn&& fn) {
  const PinnedHere pinned(cpu(0));
  const double begin = wall_now_s();
  if (workers.size() == 1 && workers.front() == 0) {
    fn(0);
  } else {
    pool_.run([&](int worker_idx) {
      if (std::binary_search(workers.begin(), workers.end(), worker_idx)) fn(worker_idx);
    });
  }
  return wall_now_s() - begin;
}

double ProbeTeam::touch(const ProbeMemory& memory) {
  const double seconds = timed(all(), [&](int worker_idx) {
    const Part own = part(memory, worker_idx);
    std::memset(own.data, 1, static_cast<size_t>(own.num_bytes));
  });
  return static_cast<double>(memory.size_bytes()) / seconds;
}

double ProbeTeam::read(const ReadLoop& loop, const ProbeMemory& memory, const Workers& workers) {
  double num_bytes = 0;
  for (const int worker_idx : workers) num_bytes += static_cast<double>(part(memory, worker_idx).num_bytes);
  const double seconds = timed(workers, [&](int worker_idx) {
    const Part own = part(memory, worker_idx);
    g_sink.fetch_add(loop.run(own.data, own.num_bytes), std::memory_order_relaxed);
  });
  return num_bytes / seconds;
}

double ProbeTeam::copy(const ProbeMemory& memory) {
  const double seconds = timed(all(), [&](int worker_idx) {
    const Part own = part(memory, worker_idx);
    std::memcpy(own.data + own.num_bytes / 2, own.data, static_cast<size_t>(own.num_bytes / 2));
  });
  return static_cast<double>(memory.size_bytes()) / 2 / seconds;
}

double ProbeTeam::multiply(const MultiplyLoop& loop, int64_t num_rounds, const Workers& workers) {
  timed(workers, [&](int worker_idx) {
    const double begin = thread_cpu_now_s();
    const float result = loop.run(num_rounds);
    const double seconds = thread_cpu_now_s() - begin;
    g_sink.fetch_add(result > 0 ? 1 : 0, std::memory_order_relaxed);
    values_[static_cast<size_t>(worker_idx)] = loop.ops_per_round * static_cast<double>(num_rounds) / seconds;
  });
  double sum = 0;
  for (const int worker_idx : workers) sum += values_[static_cast<size_t>(worker_idx)];
  return sum;
}

double ProbeTeam::empty_loop(int64_t num_loops) {
  const PinnedHere pinned(cpu(0));
  const double begin = wall_now_s();
  for (int64_t i = 0; i < num_loops; ++i) {
    pool_.parallel_for(num_threads(), [](int64_t, int64_t, int) {});
  }
  return (wall_now_s() - begin) / static_cast<double>(num_loops);
}

}  // namespace hadal
