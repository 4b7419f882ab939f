// What this machine can do at best, measured in seconds: the ceilings that every benchmark prints its share of.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

// One probe under one setting. Values are bytes, operations or seconds, as `unit` says.
struct ProbeResult {
  std::string what;     // "read", "memcpy", "first_touch", "bf16", "fp32", "int8", "disk", "barrier"
  std::string variant;  // instructions and prefetch: "avx512 t0+4096"; "" where there is only one
  int num_threads = 1;
  int numa_node = -1;  // threads and memory on this node only (operating-system index); -1: wherever the threads are
  std::string pages;   // "small", "huge", or "" where no memory is involved
  std::string unit;    // "B/s", "op/s" or "s"
  int num_samples = 0;
  double min = 0;
  double median = 0;
  double max = 0;
  double best = 0;  // max of a rate, min of a time
};

// Rates of all threads together, each the best of all probe variants (streams, prefetch, pages, vector width) and of
// all repetitions: a share above 100 % means that the probe is not a ceiling.
struct Ceilings {
  int num_threads = 1;
  double read_bytes_per_s = 0;         // from DRAM, every thread its own part
  double memcpy_bytes_per_s = 0;       // bytes copied; the memory moves two to three times as many
  double first_touch_bytes_per_s = 0;  // writing fresh anonymous pages, as loading does
  double bf16_flops = 0;               // per second; 0: no such instructions
  double fp32_flops = 0;
  double int8_ops = 0;
  double disk_read_bytes_per_s = 0;  // direct I/O; 0: not measured
  double barrier_s = 0;              // an empty parallel loop of the model's thread pool

  double read_median_bytes_per_s = 0;  // highest median of a probe: the usual state of a shared machine
  double l3_bytes = 0;                 // of all last-level caches that the threads reach; 0: unknown
  std::string cpu;                     // its name, as the operating system says
  std::vector<ProbeResult> probes;     // everything measured
};

struct CeilingOptions {
  int num_threads = 0;         // 0: default_num_threads()
  double seconds = 8;          // about how long to measure; at least one sample of every probe is taken
  std::filesystem::path disk;  // file to read by direct I/O, or a folder: its largest file; empty: no disk probe
};

// Measures everything. Needs about 1 GiB of free memory (more with large caches). Call it without a running model:
// it uses the same processors. Other load on the machine lowers the result; probes are interleaved and repeated so
// that the best sample of each falls in a quiet moment, and arithmetic is timed by the threads' CPU time.
// Errors: kInvalidArgument (num_threads, seconds), kResourceExhausted, and those of opening and reading `disk`.
Expected<Ceilings> measure_ceilings(const CeilingOptions& options);

// Field names as above. from_json ignores unknown fields and requires num_threads, read_bytes_per_s, fp32_flops.
// Errors: kCorrupt naming the field: absent, not a number, negative, not finite.
Json ceilings_to_json(const Ceilings& ceilings);
Expected<Ceilings> ceilings_from_json(const Json& json);

// The read bandwidth of a shared machine moves within seconds. Benchmarks sample it next to each measurement.
class ReadProbe {
 public:
  // Touches size_bytes (default: several times any L3) once, then picks the fastest variant. Threads are pinned like
  // the model's workers. Errors: kInvalidArgument, kResourceExhausted.
  static Expected<std::unique_ptr<ReadProbe>> create(int num_threads, uint64_t size_bytes = uint64_t{1} << 30);
  virtual ~ReadProbe() = default;
  // One pass over the memory: bytes per second of all threads together. About 20-40 ms.
  virtual double sample() = 0;
};

}  // namespace hadal
