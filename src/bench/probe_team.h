// Pinned threads that run probe loops, all of them or some, and what came of it. Internal to bench/.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "base/topology.h"
#include "bench/probe_memory.h"
#include "bench/probes.h"

namespace hadal {

// Instruction sets of this build that this processor and system run; the widest loads last.
const std::vector<const ProbeLoops*>& usable_probe_loops();

// Worker i runs on cpu(i). Single-owner; the owner is worker 0 and is moved to cpu(0) while a loop runs.
class ProbeTeam {
 public:
  ProbeTeam(const CpuTopology& topology, int num_threads);

  int num_threads() const { return pool_.num_threads(); }
  int cpu(int worker_idx) const { return cpus_[static_cast<size_t>(worker_idx) % cpus_.size()]; }
  ThreadPool& pool() { return pool_; }

  // Workers as a subset of all, for the calls below.
  using Workers = std::vector<int>;
  Workers all() const;
  Workers first(int count) const;
  Workers on(const NumaNode& node) const;

  // Writes every byte; worker i its own part, which is the one it reads later. Bytes per second.
  double touch(const ProbeMemory& memory);
  // Each of `workers` reads its own part of `memory` once. Bytes per second, together.
  double read(const ReadLoop& loop, const ProbeMemory& memory, const Workers& workers);
  // Each worker copies the first half of its part onto the second. Bytes copied per second.
  double copy(const ProbeMemory& memory);
  // Operations per second of `workers` together, by the processor time of each: what others take does not count.
  double multiply(const MultiplyLoop& loop, int64_t num_rounds, const Workers& workers);
  // Seconds of one empty parallel loop, averaged over num_loops.
  double empty_loop(int64_t num_loops);

 private:
  struct Part {
    char* data;
    int64_t num_bytes;
  };
  Part part(const ProbeMemory& memory, int worker_idx) const;
  // Runs fn(worker_idx) on `workers`, the owner pinned meanwhile; wall seconds.
  template <typename Fn>
  double timed(const Workers& workers, Fn&& fn);

  std::vector<int> cpus_;
  ThreadPool pool_;
  std::vector<double> values_;  // [num_threads], one per worker
};

}  // namespace hadal
